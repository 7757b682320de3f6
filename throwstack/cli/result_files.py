# SPDX-License-Identifier: Apache-2.0
"""Files that a command writes its results to: looked at before the long work, and written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from throwstack.core.errors import ThrowstackError
from throwstack.core.text import escape

_LONGEST = 1024


class ResultNotWritten(ThrowstackError):
    """A file for results cannot be written; the message names it and says why."""


def check(path: Path, *, force: bool) -> None:
    """Raise ResultNotWritten if the file `path` is there already and `force` is not given, or if it cannot be made."""
    name = escape(str(path), _LONGEST)
    if path.is_dir():
        message = f"{name} is a directory"
    elif not force and os.path.lexists(path):
        message = f"{name} is there already: --force overwrites it"
    elif not path.parent.is_dir():
        message = f"{escape(str(path.parent), _LONGEST)} is not a directory"
    elif not os.access(path.parent, os.W_OK):
        message = f"{escape(str(path.parent), _LONGEST)} cannot be written to"
    else:
        return
    raise ResultNotWritten(message)


def write(path: Path, text: str, *, force: bool) -> None:
    """Write `text` to the file `path`; raise ResultNotWritten if that fails.

    The text is written to a file beside it that then gets its name: a reader sees all of it or nothing, and so does the
    disk if it is full. Without `force`, a file that has appeared meanwhile is left alone.
    """
    try:
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
