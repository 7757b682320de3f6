# SPDX-License-Identifier: Apache-2.0
"""Reads what a minidump says of a module beyond the loader's entry: its version and its CodeView record.

The version is the VS_FIXEDFILEINFO in the image's resource of type RT_VERSION (PE/COFF specification, .rsrc). Resources
are seldom in memory; what is absent is left out. The CodeView record is made anew from the PDB's identity.
"""

from __future__ import annotations

import struct

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.images.image import Image, PdbIdentity

_OPTIONAL_HEADER = 24
_RESOURCES = {0x10B: 96 + 2 * 8, 0x20B: 112 + 2 * 8}
"""Offset of the resource directory in the optional header, by the header's Magic (PE32, PE32+)."""
_RT_VERSION, _SUBDIRECTORY = 16, 1 << 31
_DIRECTORY_SIZE, _MAX_ENTRIES = 16, 256
_FIXED_AT, _FIXED_SIZE = 0x28, 52
"""Where VS_FIXEDFILEINFO is in a VS_VERSIONINFO: after three words and the key VS_VERSION_INFO."""
_FIXED_SIGNATURE = b"\xbd\x04\xef\xfe"


def fixed_file_info(image: Image) -> bytes:
    """Return the 52 bytes of the image's VS_FIXEDFILEINFO; empty if it has none, or none that is in memory."""
    try:
        return _fixed_file_info(image.memory, image.base, image.module.size)
    except MemoryUnreadable:
        return b""


def codeview_record(pdb: PdbIdentity | None) -> bytes:
    """Return the RSDS record of a PDB's identity: `RSDS`, GUID, age, name with a zero; empty without an identity."""
    if pdb is None:
        return b""
    guid = bytes.fromhex(pdb.guid)
    fields = struct.pack("<I2H", *struct.unpack(">I2H", guid[:8])) + guid[8:16]
    return b"RSDS" + fields + struct.pack("<I", pdb.age & 0xFFFFFFFF) + pdb.name.encode("utf-8", "replace") + b"\0"


def _fixed_file_info(memory: Memory, base: int, size: int) -> bytes:
    optional = base + memory.u32(base + 0x3C) + _OPTIONAL_HEADER
    at = _RESOURCES.get(memory.u16(optional))
    root = 0 if at is None else memory.u32(optional + at)
    if not 0 < root < size:
        return b""
    entry = _entry(memory, base + root, wanted=_RT_VERSION)
    for _ in range(2):  # the name of the resource, then its language: the first of each
        if entry is None or not entry & _SUBDIRECTORY:
            return b""
        entry = _entry(memory, base + root + (entry & ~_SUBDIRECTORY))
    if entry is None or entry & _SUBDIRECTORY:
        return b""
    info = memory.read(base + memory.u32(base + root + entry) + _FIXED_AT, _FIXED_SIZE)
    return info if info[:4] == _FIXED_SIGNATURE else b""


def _entry(memory: Memory, directory: int, *, wanted: int | None = None) -> int | None:
    """Return the offset in the entry with the ID `wanted` of a resource directory, or in its first entry; or None."""
    count = memory.u16(directory + 12) + memory.u16(directory + 14)
    for index in range(min(count, _MAX_ENTRIES)):
        at = directory + _DIRECTORY_SIZE + 8 * index
        if wanted is None or memory.u32(at) == wanted:
            return memory.u32(at + 4)
    return None
