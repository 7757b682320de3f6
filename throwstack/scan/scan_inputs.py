# SPDX-License-Identifier: Apache-2.0
"""Finds the files that a scan examines: paths, directories, patterns of paths, and lists of paths in a file.

A file that was named is an input whatever it is, so that a foreign or missing one has its row with a reason. Of a
directory, the regular files are inputs, and links to such. Links to directories are not followed.
"""

from __future__ import annotations

import codecs
import glob
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

Say = Callable[[str], None]
_LINE_END = re.compile(r"\r?\n")


@dataclass(frozen=True, slots=True)
class DumpInput:
    """A file to examine.

    `path` is absolute. `size` is in bytes, and `modified` in nanoseconds since 1970. Both are None if the file cannot
    be asked; `problem` then says why.
    """

    path: str
    size: int | None = None
    modified: int | None = None
    problem: str = ""


def find_inputs(
    arguments: Sequence[str],
    *,
    pattern: str = "*",
    is_recursive: bool = False,
    leave_out: Path | None = None,
    say: Say = lambda _: None,
) -> tuple[DumpInput, ...]:
    """Return the files that `arguments` name, each once, ordered by path.

    Args:
        arguments: files, directories, patterns with `*`, `?` and `[…]` (`**` for directories at any depth), and `@FILE`
            for a file with one of these a line.
        pattern: which files of a directory are taken, by name.
        is_recursive: whether directories inside directories are searched as well.
        leave_out: a directory in which nothing is searched, because the results are written there.
        say: is called with a message for what gives no file at all.
    """
    search = _Search(pattern, is_recursive, None if leave_out is None else os.path.realpath(leave_out), say)
    paths = {os.path.abspath(path) for argument in arguments for path in search.paths(argument)}
    return tuple(map(_asked, sorted(paths)))


@dataclass(frozen=True, slots=True)
class _Search:
    pattern: str
    is_recursive: bool
    leave_out: str | None
    say: Say

    def paths(self, argument: str, *, is_listed: bool = False) -> Iterator[str]:
        if argument.startswith("@") and not is_listed:
            for line in self._lines(argument[1:]):
                yield from self.paths(line, is_listed=True)
        elif os.path.isdir(argument):
            if self._is_ours(argument):
                self.say(f"{argument}: nothing is searched there, because the results are written there")
            yield from self._of_directory(argument)
        elif os.path.lexists(argument) or not glob.has_magic(argument):
            yield argument
        else:
            yield from self._of_pattern(argument)

    def _lines(self, name: str) -> Iterable[str]:
        try:
            text = Path(name).read_bytes()
        except OSError as error:
            self.say(f"{name}: {error.strerror or error}")
            return ()
        if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # what `>` of PowerShell 5 writes
            return [line for line in _LINE_END.split(text.decode("utf-16", "replace")) if line.strip()]
        return [os.fsdecode(line) for line in text.removeprefix(codecs.BOM_UTF8).splitlines() if line.strip()]

    def _of_pattern(self, pattern: str) -> Iterator[str]:
        found = False
        for path in glob.iglob(pattern, recursive=True):
            found = True
            if os.path.isdir(path):
                if "**" not in pattern:
                    yield from self._of_directory(path)
            elif not self._is_ours(path):
                yield path
        if not found:
            self.say(f"{pattern}: no file matches")

    def _of_directory(self, directory: str) -> Iterator[str]:
        for folder, folders, names in os.walk(directory, onerror=self._cannot_list):
            folders[:] = [name for name in folders if self.is_recursive and not self._is_ours(f"{folder}/{name}")]
            if not self._is_ours(folder):
                matching = (os.path.join(folder, name) for name in names if fnmatch(name, self.pattern))
                yield from filter(_is_file, matching)

    def _is_ours(self, path: str) -> bool:
        if self.leave_out is None:
            return False
        whole = os.path.realpath(path)  # a directory may be reached by a link
        return whole == self.leave_out or whole.startswith(self.leave_out + os.sep)

    def _cannot_list(self, error: OSError) -> None:
        self.say(f"{error.filename}: {error.strerror or error}")


def _is_file(path: str) -> bool:
    """Say whether `path` is a regular file, or one that cannot be asked, which has its row with the reason."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def _asked(path: str) -> DumpInput:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return DumpInput(path, problem=getattr(error, "strerror", None) or str(error))
    return DumpInput(path, status.st_size, status.st_mtime_ns)
