# SPDX-License-Identifier: Apache-2.0
"""A PDB made into one file that opens at once: symbolic's SymCache, the list of functions, the frame data.

Runs as a process of its own (`throwstack.pdb.child_process`, with PDB OUT SIZE MTIME_NS): the library that reads PDBs
ends its process on some damaged files, because one length field suffices to make it ask for more memory than there is,
and nothing inside Python can catch that.

The file: magic with version; length and CRC-32 of the rest; size and modification time of the PDB it was made from;
then the parts, each with its length in front. One that is cut short or altered does not open. The checksum keeps out
accidents, not forgers: what a file holds is read as if it came from a dump.
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
from throwstack.pdb.fpo import fpo_lines, frame_data_lines
from throwstack.pdb.msf import MsfFile
from throwstack.pdb.omap import FROM_SOURCE_STREAM, TO_SOURCE_STREAM, Omap, as_before, read_streams

if TYPE_CHECKING:
    import symbolic

MAGIC = b"throwstack pdb 5"
_HEAD = struct.Struct("<16sQI")
_STAMP = struct.Struct("<Qq")
_LENGTH = struct.Struct("<Q")
_MEMORY_LIMIT = 8 << 30
_MAX_FUNCTIONS = 1 << 24
_MAX_GROWTH, _MAX_BESIDE = 4, 64 << 20
"""How many times a PDB's size, and how much beside, a converted one may have: mostly it is smaller than the PDB."""

SYMCACHE_VERSION = 9
"""The SymCache layout whose list of functions `function_list` reads."""
_SYMCACHE_HEADER = struct.Struct("<4sI32sIIIIII")
_FUNCTION = struct.Struct("<IIII")
_SOURCE_LOCATION_SIZE, _RANGE_SIZE = 16, 4
_INLINE_ONLY = 0xFFFFFFFF


class NotConverted(ThrowstackError):
    """A file that bears the marks of a converted PDB and cannot be one; the text says why."""


@dataclass(frozen=True, slots=True)
class Converted:
    """The parts of a converted PDB: a SymCache, functions as `pack_functions` writes them, `STACK WIN` text.

    If the image was rearranged, the SymCache and the functions are those of the image before; the OMAP streams
    translate.
    """

    symcache: bytes
    functions: bytes
    frames: bytes
    omap_from_source: bytes = b""
    omap_to_source: bytes = b""


def pack_functions(functions: list[tuple[int, str]]) -> bytes:
    """Return functions, (RVA, name as a debugger shows it), as a count, the RVAs and the names."""
    names = "\n".join(name.replace("\n", " ") for _, name in functions).encode("utf-8", "replace")
    return struct.pack(f"<Q{len(functions)}I", len(functions), *(rva for rva, _ in functions)) + names


def count_functions(data: bytes) -> int:
    """Return how many functions `pack_functions` was given. Raises `NotConverted`."""
    count: int = _LENGTH.unpack_from(data)[0] if len(data) >= _LENGTH.size else 1
    if not 0 <= count <= min((len(data) - _LENGTH.size) // 4, _MAX_FUNCTIONS):
        message = "its list of functions is shorter than its count says"
        raise NotConverted(message)
    return count


def unpack_functions(data: bytes) -> list[tuple[int, str]]:
    """Return what `pack_functions` was given. Raises `NotConverted`."""
    count = count_functions(data)
    names = data[_LENGTH.size + 4 * count :].decode("utf-8", "replace").split("\n", count)
    return list(zip(struct.unpack_from(f"<{count}I", data, _LENGTH.size), names, strict=False))


def save(path: Path, parts: Converted, stamp: tuple[int, int]) -> None:
    """Write `parts` to the new file `path`; `stamp` is the PDB's size and modification time."""
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
    """Return what `save` wrote, or None if it is absent, damaged, or was made from another file than `stamp` says.

    Raises `NotConverted` if it is none of these and yet nothing that `save` writes.
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
    """Return the five parts. Raises `NotConverted` if their lengths are not the length of it all."""
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
    """Read the PDB. Raises what symbolic raises (`symbolic.SymbolicError` and others) when it cannot."""
    import symbolic  # noqa: PLC0415 only the process that converts pays for it

    with pdb.open("rb") as file:
        streams = read_streams(MsfFile(file), (FROM_SOURCE_STREAM, TO_SOURCE_STREAM))
    omap = Omap(*streams)
    before = as_before(pdb) if omap else b""  # from_bytes does not hold on to what it is given
    archive = symbolic.Archive.from_bytes(before) if omap else symbolic.Archive.open(str(pdb))
    objects = list(archive.iter_objects())
    symcache = objects[0].make_symcache()
    data = symcache.open_stream().read()
    try:
        lines = objects[0].make_cficache().open_stream().read().decode("utf-8", "replace").splitlines()
    except symbolic.SymbolicError:
        lines = []  # names are of use without frame data
    frames = [*frame_data_lines(lines, omap), *fpo_lines(pdb, omap)]
    return Converted(data, pack_functions(function_list(data, symcache)), "\n".join(frames).encode(), *streams)


def function_list(data: bytes, symcache: symbolic.SymCache) -> list[tuple[int, str]]:
    """Return (RVA, shown name) of the functions in a SymCache, which the library looks up but does not list.

    Reads the layout of `SYMCACHE_VERSION`: header, files, functions, source locations, ranges, strings. Entries that
    the library itself does not confirm are left out, so another layout yields an empty list and never wrong names.
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
    """Convert one file; print the reason and return 1 if that cannot be done."""
    pdb, out, size, modified = arguments
    end_with_parent(Path(out).parent)
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 not on Windows

        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    try:
        save(Path(out), convert(Path(pdb)), (int(size), int(modified)))
    except Exception as error:  # noqa: BLE001 whatever it is, the caller's process prints it
        sys.stdout.buffer.write(f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:400])
        return 1
    return 0
