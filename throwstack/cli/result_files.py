# SPDX-License-Identifier: Apache-2.0
"""Files that a command writes its results to: looked at before the long work, and written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path

from throwstack.core.errors import ThrowstackError
from throwstack.core.text import escape

STDOUT = Path("-")
"""The name of a result file which means standard output."""
_LONGEST = 1024


class ResultNotWritten(ThrowstackError):
    """A file for results cannot be written; the message names it and says why."""


def check_all(paths: Sequence[Path], inputs: Iterable[Path], *, force: bool) -> None:
    """Raise ResultNotWritten if `check` does for one of `paths`, if two are one file, or if one is among `inputs`."""
    for path in paths:
        try:
            check(path, force=force)
        except OSError as error:  # too long a name
            message = f"{escape(str(path), _LONGEST)}: {error.strerror or error}"
            raise ResultNotWritten(message) from error
        if any(_is_same(path, given) for given in inputs):
            message = f"{escape(str(path), _LONGEST)} is what is to be examined"
            raise ResultNotWritten(message)
    for first, second in combinations(paths, 2):
        if _is_same(first, second) or first.resolve() == second.resolve():
            message = f"{escape(str(first), _LONGEST)} is named for two results"
            raise ResultNotWritten(message)


def check(path: Path, *, force: bool) -> None:
    """Raise ResultNotWritten if the file `path` is there already and `force` is not given, or if it cannot be made."""
    name = escape(str(path), _LONGEST)
    if "\0" in str(path):
        message = f"{name} can be no file's name"
        raise ResultNotWritten(message)
    if _is_stream(path):
        return
    if path.is_dir():
        message = f"{name} is a directory"
    elif not force and os.path.lexists(path):
        message = f"{name} is there already: --force overwrites it"
    elif not (parent := _overwritten(path).parent).is_dir():
        message = f"{escape(str(parent), _LONGEST)} is not a directory"
    elif not os.access(parent, os.W_OK):
        message = f"{escape(str(parent), _LONGEST)} cannot be written to"
    else:
        return
    raise ResultNotWritten(message)


def write(path: Path, text: str, *, force: bool) -> None:
    """Write `text` to the file `path`; raise ResultNotWritten if that fails.

    The text is written to a file beside it that then gets its name: a reader sees all of it or nothing, and so does the
    disk if it is full. Without `force`, a file that has appeared meanwhile is left alone. A device or pipe, such as
    /dev/stdout, is written to as it is: no file takes its name.
    """
    try:
        if _is_stream(path):
            with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
                stream.write(text)
            return
        path = _overwritten(path)
        handle, name = tempfile.mkstemp(prefix=".throwstack-", dir=path.parent)
        made = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(text)
            _allow_as_usual(made)
            _rename(made, path, force=force)
        finally:
            with suppress(OSError):
                made.unlink()
    except OSError as error:
        message = f"{escape(str(path), _LONGEST)}: {error.strerror or error}"
        raise ResultNotWritten(message) from error


def _is_stream(path: Path) -> bool:
    """Say whether `path` is there and is neither a file nor a directory: a device, a pipe, `>(gzip)` of a shell."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _overwritten(path: Path) -> Path:
    """Return the file that is overwritten: that to which a link leads, so that the link stays.

    Example: /dev/stdout is a link to a file after `> file`, and nobody wants it replaced.
    """
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _is_same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second) and not _is_stream(first)
    except (OSError, ValueError):  # one of them is not there, or can be no file
        return False


def _rename(made: Path, path: Path, *, force: bool) -> None:
    if force or os.name == "nt":  # there, rename fails if the target exists
        (made.replace if force else made.rename)(path)
        return
    try:
        os.link(made, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        check(path, force=False)
        made.rename(path)


def _allow_as_usual(made: Path) -> None:
    """Give a file the rights of a new file: mkstemp makes files that only their owner may read."""
    mask = os.umask(0)
    os.umask(mask)
    made.chmod(0o666 & ~mask)
