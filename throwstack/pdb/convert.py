# SPDX-License-Identifier: Apache-2.0
"""Converts a PDB into one file that opens quickly: symbolic's SymCache, the list of functions, the frame data.

The conversion runs in a process of its own, with the arguments PDB OUT SIZE MTIME_NS. The reason: symbolic aborts the
process on some damaged PDBs. A single wrong length field can make it ask for more memory than there is, and Python
cannot catch that.

The file begins with a magic string that contains a version. Length and CRC-32 of the rest follow, then size and
modification time of the PDB from which it was made, and then the parts, each preceded by its length. A truncated or
altered file does not open. The checksum protects against accidents and not against forgery. So the contents are treated
as hostile, like those of a dump.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from throwstack.core.errors import ThrowstackError
from throwstack.files.cache_files import new_file
from throwstack.names.demangle import display_name
from throwstack.pdb.child_process import end_with_parent
from throwstack.pdb.dbi import DebugStream
from throwstack.pdb.fpo import fpo_lines, frame_data_lines
from throwstack.pdb.msf import MsfFile, Stream
from throwstack.pdb.omap import Omap, read_streams

if TYPE_CHECKING:
    import symbolic

MAGIC = b"throwstack pdb 5"
_HEAD = struct.Struct("<16sQI")
_STAMP = struct.Struct("<Qq")
_LENGTH = struct.Struct("<Q")
_MEMORY_LIMIT = 8 << 30
_MAX_FUNCTIONS = 1 << 24
_MAX_GROWTH, _MAX_BESIDE = 4, 64 << 20
"""How large a converted file may be: this many times the size of its PDB, plus this many bytes.

Mostly it is smaller than the PDB.
"""

SYMCACHE_VERSION = 9
"""The version of the SymCache layout that `function_list` reads."""
_SYMCACHE_HEADER = struct.Struct("<4sI32sIIIIII")
_FUNCTION = struct.Struct("<IIII")
_SOURCE_LOCATION_SIZE, _RANGE_SIZE = 16, 4
_INLINE_ONLY = 0xFFFFFFFF


class HeldStream(Stream):
    """A stream whose bytes are in memory."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Return `size` bytes at `offset`, or all that follow."""
        return self._data[offset : None if size is None else offset + size]


class NotConverted(ThrowstackError):
    """A file that looks like a converted PDB cannot be one; the message says why."""


@dataclass(frozen=True, slots=True)
class Converted:
    """The parts of a converted PDB.

    `symcache` is a SymCache of the library symbolic. `functions` are the bytes of `pack_functions`. `frames` is the
    frame data as `STACK WIN` text. If the image was rearranged after linking, SymCache and functions have the addresses
    from before that, and the frame data has those from after it. The two OMAP streams translate between them
    (`throwstack.pdb.omap`).
    """

    symcache: bytes
    functions: bytes
    frames: bytes
    omap_from_source: bytes = b""
    omap_to_source: bytes = b""


def pack_functions(functions: list[tuple[int, str]]) -> bytes:
    """Return pairs (RVA, shown name) as bytes: a count, the RVAs, the names separated by line ends."""
    names = "\n".join(name.replace("\n", " ") for _, name in functions).encode("utf-8", "replace")
    return struct.pack(f"<Q{len(functions)}I", len(functions), *(rva for rva, _ in functions)) + names


def count_functions(data: bytes) -> int:
    """Return the number of functions in the bytes that `pack_functions` returned. Raises `NotConverted`."""
    count: int = _LENGTH.unpack_from(data)[0] if len(data) >= _LENGTH.size else 1
    if not 0 <= count <= min((len(data) - _LENGTH.size) // 4, _MAX_FUNCTIONS):
        message = "its list of functions is shorter than its count says"
        raise NotConverted(message)
    return count


def unpack_functions(data: bytes) -> list[tuple[int, str]]:
    """Return the pairs (RVA, shown name) in the bytes that `pack_functions` returned. Raises `NotConverted`."""
    count = count_functions(data)
    names = data[_LENGTH.size + 4 * count :].decode("utf-8", "replace").split("\n", count)
    return list(zip(struct.unpack_from(f"<{count}I", data, _LENGTH.size), names, strict=False))


def save(path: Path, parts: Converted, stamp: tuple[int, int]) -> None:
    """Write `parts` to the new file `path`.

    `stamp` is the size in bytes and the modification time in nanoseconds of the PDB.
    """
    body = [_STAMP.pack(*stamp)]
    for part in (parts.symcache, parts.functions, parts.frames, parts.omap_from_source, parts.omap_to_source):
        body += [_LENGTH.pack(len(part)), part]
    checksum = 0
    for piece in body:
        checksum = zlib.crc32(piece, checksum)
    with new_file(path) as file:
        file.write(_HEAD.pack(MAGIC, sum(map(len, body)), checksum))
        file.writelines(body)


def load(path: Path, stamp: tuple[int, int]) -> Converted | None:
    """Return the parts that `save` wrote; None if the file is absent, damaged, or made from a PDB with another `stamp`.

    Raises:
        NotConverted: the file is intact, but `save` cannot have written it.
    """
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            message = "no regular file"
            raise NotConverted(message)
        with path.open("rb") as file:
            head = file.read(_HEAD.size + _STAMP.size)
            magic, length, checksum = _HEAD.unpack_from(head)
            if magic != MAGIC or length != status.st_size - _HEAD.size or _STAMP.unpack_from(head, _HEAD.size) != stamp:
                return None
            if length > _MAX_GROWTH * stamp[0] + _MAX_BESIDE:
                message = f"{length >> 20} MB, made from {stamp[0] >> 20} MB"
                raise NotConverted(message)
            body = head[_HEAD.size :] + file.read(length - _STAMP.size)
    except (OSError, struct.error):
        return None
    if len(body) != length or checksum != zlib.crc32(body):
        return None
    parts = Converted(*_split(memoryview(body)[_STAMP.size :]))
    count_functions(parts.functions)
    return parts


def _split(body: memoryview) -> list[bytes]:
    """Return the five parts in `body`. Raises `NotConverted` if the parts do not fill `body` exactly."""
    parts = []
    for _ in range(5):
        size = _LENGTH.unpack_from(body)[0] if len(body) >= _LENGTH.size else len(body)
        if size > len(body) - _LENGTH.size:
            message = "a part is longer than the file"
            raise NotConverted(message)
        parts.append(bytes(body[_LENGTH.size : _LENGTH.size + size]))
        body = body[_LENGTH.size + size :]
    if body:
        message = "it is longer than its parts"
        raise NotConverted(message)
    return parts


def convert(pdb: Path) -> Converted:
    """Return the parts of the file `pdb`. Raises `NotAPdb`, `OSError` and whatever the library symbolic raises."""
    import symbolic  # noqa: PLC0415 only the process that converts pays for it

    with MsfFile(pdb) as msf:
        streams = read_streams(msf, (DebugStream.OMAP_FROM_SOURCE, DebugStream.OMAP_TO_SOURCE))
    omap = Omap(*map(HeldStream, streams))
    archive = symbolic.Archive.open(str(pdb))
    objects = list(archive.iter_objects())
    symcache = objects[0].make_symcache()
    data = symcache.open_stream().read()
    try:
        lines = objects[0].make_cficache().open_stream().read().decode("utf-8", "replace").splitlines()
    except symbolic.SymbolicError:
        lines = []  # names are useful without frame data
    frames = [*frame_data_lines(lines, omap), *fpo_lines(pdb, omap)]
    return Converted(data, pack_functions(function_list(data, symcache)), "\n".join(frames).encode(), *streams)


def function_list(data: bytes, symcache: symbolic.SymCache) -> list[tuple[int, str]]:
    """Return (RVA, shown name) of each function in a SymCache, which symbolic can look up but not list.

    `data` are the bytes of `symcache`. They are read here, in the layout of `SYMCACHE_VERSION`: header, files,
    functions, source locations, ranges, strings. Each function that is found so is looked up with symbolic, and left
    out if symbolic does not find it. So if the layout is another one, the list is empty rather than wrong.
    """
    _, version, _, _, _, functions, locations, ranges, strings_size = _SYMCACHE_HEADER.unpack_from(data)
    if version != SYMCACHE_VERSION:
        return []
    strings = len(data) - strings_size
    start = strings - _aligned(_RANGE_SIZE * ranges) - _aligned(_SOURCE_LOCATION_SIZE * locations)
    start -= _aligned(_FUNCTION.size * functions)
    if start < _SYMCACHE_HEADER.size:
        return []
    found: dict[int, str] = {}
    for _, _, entry, _ in _FUNCTION.iter_unpack(data[start : start + _FUNCTION.size * functions]):
        if entry == _INLINE_ONLY or entry in found:
            continue
        located = symcache.lookup(entry)
        if located and located[-1].sym_addr == entry:
            found[entry] = display_name(located[-1].symbol)
    return sorted(found.items())


def _aligned(size: int) -> int:
    return -(-size // 8) * 8


def main(arguments: list[str]) -> int:
    """Convert one PDB and return 0; if that fails, print the reason and return 1.

    `arguments` are the path of the PDB, the path of the new file, and size and modification time (ns) of the PDB.
    """
    pdb, out, size, modified = arguments
    end_with_parent(Path(out).parent)
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 not on Windows

        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    try:
        save(Path(out), convert(Path(pdb)), (int(size), int(modified)))
    except Exception as error:  # noqa: BLE001 the parent process shows the reason
        sys.stdout.buffer.write(f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:400])
        return 1
    return 0
