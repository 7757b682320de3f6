# SPDX-License-Identifier: Apache-2.0
"""Reads bytes of a dump file, from a file on disk or from any other source."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import BinaryIO, Protocol


class ByteSource(Protocol):
    """The contents of a file, read by offset."""

    @property
    def size(self) -> int:
        """Return the file's length in bytes."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset`: fewer at the end of the file, none after it."""
        ...


class FileBytes:
    """A file on disk, which is open until `close`."""

    def __init__(self, path: Path) -> None:
        """Open `path`, a regular file or a disk. Raises OSError if it is something else or cannot be opened.

        Pipes are refused because opening one waits until somebody writes to it. Devices like /dev/zero are refused
        because reading one never ends.
        """
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise OSError(errno.EINVAL, "not a file that can be read from any place", str(path))
        self._file: BinaryIO = path.open("rb")
        self.size = self._file.seek(0, 2)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset`: fewer at the end of the file, none if the disk fails."""
        try:
            self._file.seek(offset)
            return self._file.read(size)
        except (OSError, ValueError):
            return b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()
