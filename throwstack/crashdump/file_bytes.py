# SPDX-License-Identifier: Apache-2.0
"""Bytes of a file, wherever they come from."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import BinaryIO, Protocol


class ByteSource(Protocol):
    """A file's contents."""

    @property
    def size(self) -> int:
        """Return the file's length in bytes."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes at `offset`: fewer than `size` at the end of the file, none behind it."""
        ...


class FileBytes:
    """A file on disk, open until `close`."""

    def __init__(self, path: Path) -> None:
        """Open `path`, a file or a disk; raises OSError.

        A pipe would wait for a writer, and of a device like /dev/zero nobody knows where it ends.
        """
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise OSError(errno.EINVAL, "not a file that can be read from any place", str(path))
        self._file: BinaryIO = path.open("rb")
        self.size = self._file.seek(0, 2)

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes at `offset`; none where the disk fails."""
        try:
            self._file.seek(offset)
            return self._file.read(size)
        except (OSError, ValueError):
            return b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()
