# SPDX-License-Identifier: Apache-2.0
"""Reads the container format of PDBs (MSF): numbered streams, each of which is a list of blocks.

Follows LLVM's "The MSF File Format". Nothing but the directory of streams is read when a file is opened. A range of a
stream is read when it is asked for, with one read for each run of blocks that are next to each other in the file.

The file is never mapped into memory. A mapped file that another program truncates, a linker or the other side of a
network share, ends the process at the next access (SIGBUS), and on Windows a mapped file cannot be replaced. A plain
read then returns fewer bytes, which is an error with a message.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections import deque
from io import FileIO
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from weakref import ref

from throwstack.core.errors import ThrowstackError
from throwstack.core.text import escape
from throwstack.pdb.time_limit import TimeLimit

DBI_STREAM = 3
NO_STREAM = 0xFFFF
"""The number that means "no stream" wherever a PDB has a 16-bit number of a stream."""

_MAGIC = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"
_OTHER_MAGICS = {
    _MAGIC[:15]: "a PDB of the old format 2.00",
    b"BSJB": "a portable PDB, which is for .NET code only",
}
_SUPERBLOCK = struct.Struct("<32sIIIIII")
_BLOCK_SIZES = frozenset(1 << bits for bits in range(9, 17))
_MAX_DIRECTORY = 64 << 20
_MAX_STREAMS = 1 << 16
_NIL = 0xFFFFFFFF
_MAX_KEPT = 1 << 20
"""How many bytes of single blocks are kept: binary searches read the same blocks over and over."""

_CHECKED_EVERY = 0.02
"""Seconds of reading after which it is checked again that the file is the same. Each check is a call of the system."""
_MAX_OPEN = 64
_OPEN: deque[ref[MsfFile]] = deque()
"""The files that were opened last, oldest first."""


class NotAPdb(ThrowstackError):
    """A file is not a PDB, or is a damaged PDB. The message is the file's path and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        """`reason` says what is wrong with the file `path`."""
        super().__init__(f"{escape(str(path))}: {reason}")
        self.reason = reason


class Stream:
    """One stream of a PDB. Its bytes are read from the file when they are asked for."""

    __slots__ = ("_blocks", "_file", "size")

    def __init__(self, file: MsfFile, size: int, blocks: bytes) -> None:
        """`size` is the length in bytes. `blocks` are the numbers of the stream's blocks, 32 bits each."""
        self._file = file
        self.size = size
        self._blocks = blocks

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Return `size` bytes at `offset`: fewer at the end of the stream, none after it; all that follow for None.

        Raises:
            NotAPdb: a block is outside the file, or the file was truncated since it was opened.
        """
        end = self.size if size is None else min(offset + size, self.size)
        if not 0 <= offset < end:
            return b""
        file, block_size = self._file, self._file.block_size
        first, last = offset // block_size, (end - 1) // block_size
        start = offset - first * block_size
        if first == last:
            number = int.from_bytes(self._blocks[4 * first : 4 * first + 4], "little")
            return file.block(number)[start : start + end - offset]
        numbers = struct.unpack_from(f"<{last - first + 1}I", self._blocks, 4 * first)
        data = b"".join(file.read_blocks(number, count) for number, count in _runs(numbers))
        return data if len(data) == end - offset else data[start : start + end - offset]


class MsfFile:
    """The streams of a PDB, which is open until `close`, or until the end of a `with` block.

    Every method raises `NotAPdb` if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        """Open `path` and read its directory of streams. Raises OSError if the file cannot be opened."""
        self.path = path
        self.time = TimeLimit(self.error)
        """How long the reading of the file may take."""
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe waits until somebody writes to it
            message = "not a regular file"
            raise self.error(message)
        self._kept: dict[int, bytes] = {}
        self._is_closed = False
        self._file: FileIO | None = None
        self._stamp = self._open()
        self._checked_at = time.monotonic()
        try:
            self._read_directory()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> MsfFile:  # noqa: PYI034 typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Its streams cannot be read any more."""
        self._is_closed = True
        self._rest()

    def error(self, reason: str) -> NotAPdb:
        """Return the error that says `reason` of this file."""
        return NotAPdb(self.path, reason)

    def stream(self, number: int) -> Stream:
        """Return stream `number`, which is empty if the file has no such stream."""
        if not 0 <= number < len(self._sizes):
            return Stream(self, 0, b"")
        size = self._sizes[number]
        if size > self.size:  # a hostile list of blocks could name one block over and over
            message = f"damaged (stream {number} is longer than the file)"
            raise self.error(message)
        start = self._starts[number]
        return Stream(self, size, self._directory[start : start + 4 * self._blocks_of(size)])

    def block(self, number: int) -> bytes:
        """Return block `number`. A few blocks are kept in memory."""
        found = self._kept.get(number)
        if found is None:
            if len(self._kept) * self.block_size >= _MAX_KEPT:
                self._kept.clear()
            found = self._kept[number] = self.read_blocks(number, 1)
        return found

    def read_blocks(self, number: int, count: int) -> bytes:
        """Return the `count` blocks from `number` on; the last block of the file may be short."""
        offset, size = number * self.block_size, count * self.block_size
        if offset + size - self.block_size >= self.size:
            message = "damaged (a stream is outside the file)"
            raise self.error(message)
        size = min(size, self.size - offset)
        data = self._read_at(offset, size)
        if len(data) != size:
            message = "truncated while it was read"
            raise self.error(message)
        return data

    def _open(self) -> tuple[int, int]:
        """Open the file. Return its size in bytes and its modification time in nanoseconds."""
        self._file = FileIO(self.path)
        _OPEN.append(ref(self))
        if len(_OPEN) > _MAX_OPEN:
            oldest = _OPEN.popleft()()
            if oldest is not None and oldest is not self:
                oldest._rest()  # noqa: SLF001 another file of this class
        status = os.fstat(self._file.fileno())
        self.size = status.st_size
        return status.st_size, status.st_mtime_ns

    def _open_again(self) -> FileIO:
        """Open the file once more after others were opened, unless it is closed for good. Return it."""
        if self._is_closed:
            message = "was closed"
            raise self.error(message)
        try:
            stamp = self._open()
        except OSError as error:
            message = f"cannot be read any more ({error.strerror or error})"
            raise self.error(message) from None
        if stamp != self._stamp or self._file is None:
            message = "changed while it was read"
            raise self.error(message)
        return self._file

    def _rest(self) -> None:
        """Close the file until it is needed again. A dump has more PDBs than a process can have open files."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes of the file at `offset`, or fewer at its end."""
        file = self._file
        if file is None:
            file = self._open_again()
        file.seek(offset)
        data = file.read(size)
        while data and len(data) < size:  # a system call returns at most 2 GB, and some file systems less
            more = file.read(size - len(data))
            if not more:
                break
            data += more
        if time.monotonic() - self._checked_at >= _CHECKED_EVERY:
            self._check_unchanged(file)
        return data or b""

    def _check_unchanged(self, file: FileIO) -> None:
        """Raise if another program has written to the file: what was read before may not belong to what is read now."""
        self._checked_at = time.monotonic()
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != self._stamp:
            message = "truncated while it was read" if status.st_size < self._stamp[0] else "changed while it was read"
            raise self.error(message)

    def _read_directory(self) -> None:
        head = self._read_at(0, _SUPERBLOCK.size)
        if len(head) < _SUPERBLOCK.size or head[:32] != _MAGIC:
            raise self.error(
                next((what for magic, what in _OTHER_MAGICS.items() if head.startswith(magic)), "not a PDB")
            )
        self.block_size: int
        _, self.block_size, _, blocks, directory_size, _, map_block = _SUPERBLOCK.unpack(head)
        if self.block_size not in _BLOCK_SIZES or directory_size > _MAX_DIRECTORY:
            message = "damaged (its header holds impossible sizes)"
            raise self.error(message)
        if blocks * self.block_size > self.size:
            message = f"truncated ({self.size} of {blocks * self.block_size} bytes)"
            raise self.error(message)
        if directory_size > self.size:
            message = "damaged (its directory is longer than the file)"
            raise self.error(message)
        directory_blocks = self._blocks_of(directory_size)
        numbers = self.read_blocks(map_block, self._blocks_of(4 * directory_blocks)) if directory_blocks else b""
        if len(numbers) < 4 * directory_blocks:
            message = "damaged (its directory is outside the file)"
            raise self.error(message)
        self._directory = Stream(self, directory_size, numbers).read()
        self._read_sizes()

    def _read_sizes(self) -> None:
        """Find each stream's size, and where its list of blocks starts in the directory."""
        directory = self._directory
        count = int.from_bytes(directory[:4], "little")
        if count > _MAX_STREAMS or 4 + 4 * count > len(directory):
            message = "damaged (its directory lists more streams than it holds)"
            raise self.error(message)
        sizes = struct.unpack_from(f"<{count}I", directory, 4) if count else ()
        self._sizes = [0 if size == _NIL else size for size in sizes]
        lengths = (4 * self._blocks_of(size) for size in self._sizes)
        self._starts = list(accumulate(lengths, initial=4 + 4 * count))
        if self._starts[-1] > len(directory):
            message = "damaged (its directory is shorter than its lists of blocks)"
            raise self.error(message)

    def _blocks_of(self, size: int) -> int:
        return -(-size // self.block_size)


def _runs(numbers: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the runs of adjoining blocks in `numbers`, each as its first block and the number of its blocks."""
    runs = []
    start = 0
    for index in range(1, len(numbers) + 1):
        if index == len(numbers) or numbers[index] != numbers[index - 1] + 1:
            runs.append((numbers[start], index - start))
            start = index
    return runs
