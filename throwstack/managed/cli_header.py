# SPDX-License-Identifier: Apache-2.0
"""Reads the CLI header of a managed image, which says where metadata and precompiled code are.

Follows ECMA-335, II.25.3.3, and the PE/COFF specification. An image is in memory in one of two ways. The loader (or
the runtime, as it does) lays it out by its sections: an RVA counts from the base. Or the file is in memory as it is on
disk ("flat"), as a single-file application has it: then the section table tells where in the file an RVA is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.managed.metadata_error import MetadataError

_NEW_HEADER, _OPTIONAL_HEADER = 0x3C, 24
"""Offset of e_lfanew in the image, and of the optional header from the signature `PE`."""
_MAX_NEW_HEADER = 1 << 16
_DIRECTORIES = {0x10B: 96, 0x20B: 112}
"""Offset of the data directories in the optional header, by its magic number: PE32, PE32+."""
_CLI_DIRECTORY, _EXCEPTION_DIRECTORY = 14, 3
_SECTION = struct.Struct("<8sIIII16x")
_MAX_SECTIONS = 96
_CLI = struct.Struct("<IHHIIIIIIIIIIIIIIII")
_MIN_CLI = 72


@dataclass(frozen=True, slots=True)
class _FilePart:
    """A section of a flat image: its RVA, its size in bytes, and where it is in the file."""

    rva: int
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class CliHeader:
    """The CLI header of the image at `base`. A directory is (RVA, size in bytes), (0, 0) if the image has none.

    `precompiled` is ManagedNativeHeader: the header of ReadyToRun or of NGEN. `exceptions` is the PE's table of
    RUNTIME_FUNCTIONs. `image_size` is SizeOfImage, in bytes; `timestamp` that of the PE header.
    """

    base: int
    flags: int
    entry_point: int
    metadata: tuple[int, int]
    precompiled: tuple[int, int]
    exceptions: tuple[int, int]
    image_size: int
    timestamp: int
    is_pe32: bool
    file_parts: tuple[_FilePart, ...] | None
    """The sections, if the image is flat; None if it is laid out."""

    @classmethod
    def read(cls, memory: Memory, base: int, *, is_flat: bool = False) -> CliHeader | None:
        """Read the headers of the image at `base`; None if it is no PE image or has no CLI header.

        Raises:
            MetadataError: a page with headers is absent, or the CLI header is damaged.
        """
        try:
            return _read(memory, base, is_flat=is_flat)
        except MemoryUnreadable as error:
            message = f"the headers of the image at {base:#x} are not readable at {error.address:#x}"
            raise MetadataError(message) from error

    def address(self, rva: int) -> int:
        """Return the address at which `rva` is in memory. Raises MetadataError if it is outside the image."""
        if self.file_parts is None:
            if 0 <= rva < self.image_size:
                return self.base + rva
        else:
            for part in self.file_parts:
                if part.rva <= rva < part.rva + part.size:
                    return self.base + part.offset + rva - part.rva
        message = f"the RVA {rva:#x} is outside the image at {self.base:#x}"
        raise MetadataError(message)


def _read(memory: Memory, base: int, *, is_flat: bool) -> CliHeader | None:
    new_header = memory.u32(base + _NEW_HEADER)
    if memory.u16(base) != 0x5A4D or new_header > _MAX_NEW_HEADER or memory.u32(base + new_header) != 0x4550:
        return None
    sections, timestamp, optional_size = struct.unpack("<HI8xH", memory.read(base + new_header + 6, 16))
    optional = base + new_header + _OPTIONAL_HEADER
    magic = memory.u16(optional)
    if magic not in _DIRECTORIES:
        return None
    directories = optional + _DIRECTORIES[magic]
    if memory.u32(directories - 4) <= _CLI_DIRECTORY:
        return None
    exceptions: tuple[int, int] = struct.unpack("<II", memory.read(directories + 8 * _EXCEPTION_DIRECTORY, 8))
    rva, size = struct.unpack("<II", memory.read(directories + 8 * _CLI_DIRECTORY, 8))
    if not rva:
        return None
    parts = _file_parts(memory, optional + optional_size, sections) if is_flat else None
    image_size = memory.u32(optional + 56)
    header = CliHeader(base, 0, 0, (0, 0), (0, 0), exceptions, image_size, timestamp, magic == 0x10B, parts)
    if size < _MIN_CLI:
        message = f"the CLI header of the image at {base:#x} has {size} bytes"
        raise MetadataError(message)
    values = _CLI.unpack(memory.read(header.address(rva), _CLI.size))
    return replace(header, flags=values[5], entry_point=values[6], metadata=values[3:5], precompiled=values[17:19])


def _file_parts(memory: Memory, address: int, count: int) -> tuple[_FilePart, ...]:
    parts = []
    for index in range(min(count, _MAX_SECTIONS)):
        _, virtual_size, rva, raw_size, offset = _SECTION.unpack(
            memory.read(address + index * _SECTION.size, _SECTION.size)
        )
        parts.append(_FilePart(rva, min(virtual_size or raw_size, raw_size), offset))
    return tuple(parts)
