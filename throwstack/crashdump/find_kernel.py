# SPDX-License-Identifier: Apache-2.0
"""Finds which kernel is in a dump, and thus which symbols are needed, by the dump's header or else by a search.

A crash dump's header gives the addresses of the kernel's page tables and of its list of modules, whose first entry is
the kernel itself. If these cannot be followed, or the file has no such header, the file is searched for the record that
names the kernel's PDB ("RSDS").
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from throwstack.core.memory import Memory, MemoryUnreadable, PageSource
from throwstack.crashdump.file_bytes import ByteSource
from throwstack.crashdump.header import DumpHeader
from throwstack.images.image import Image, PdbIdentity, parse_rsds
from throwstack.images.modules import Module
from throwstack.pages.page_tables import AddressSpace

_NAMES = ("ntkrnlmp.pdb", "ntkrnlpa.pdb", "ntkrpamp.pdb", "ntoskrnl.pdb", "ntkrla57.pdb")
_RECORD = re.compile(b"RSDS.{20}(?:" + "|".join(map(re.escape, _NAMES)).encode() + b")\0", re.DOTALL)
_CHUNK = 16 << 20
_OVERLAP = 64
_KERNEL_BASE = {True: (0x30, 0x40), False: (0x18, 0x20)}
"""Offsets of DllBase and SizeOfImage in a KLDR_DATA_TABLE_ENTRY, by whether Windows is 64-bit; no version differs."""
_DEBUGGER_DATA_TAG, _DEBUGGER_DATA_BASE = 0x10, 0x18
_UNKNOWN_SIZE = 16 << 20


@dataclass(frozen=True, slots=True)
class Kernel:
    """The identity of the kernel's PDB, and the kernel's base address; 0 if it was found by a search of the file."""

    pdb: PdbIdentity
    base: int = 0


def kernel_of(pages: PageSource, header: DumpHeader) -> Kernel | None:
    """Return the kernel, found by the addresses in the header of a crash dump, or None if they cannot be followed.

    `pages` are the dump's physical pages.
    """
    memory = Memory(AddressSpace(Memory(pages), header.paging, header.directory_base))
    for find in (_by_module_list, _by_debugger_data):
        try:
            base, size = find(memory, header)
        except MemoryUnreadable:
            continue
        image = Image(Module("ntoskrnl.exe", "", base, size), memory)
        if image.pdb is not None:
            return Kernel(image.pdb, base)
    return None


def _by_module_list(memory: Memory, header: DumpHeader) -> tuple[int, int]:
    pointer = memory.u64 if header.is_64bit else memory.u32
    base_at, size_at = _KERNEL_BASE[header.is_64bit]
    entry = pointer(header.module_list)
    return pointer(entry + base_at), memory.u32(entry + size_at)


def _by_debugger_data(memory: Memory, header: DumpHeader) -> tuple[int, int]:
    block = header.debugger_data
    if memory.read(block + _DEBUGGER_DATA_TAG, 4) != b"KDBG":
        raise MemoryUnreadable(block)
    return memory.u64(block + _DEBUGGER_DATA_BASE), _UNKNOWN_SIZE


def search_kernel(data: ByteSource, progress: Callable[[int], None] = lambda _: None) -> Kernel | None:
    """Return the first kernel whose RSDS record is in the file, or None if no such record is found.

    `progress` is called from time to time with the number of bytes that have been searched.
    """
    for offset in range(0, data.size, _CHUNK):
        progress(offset)
        match = _RECORD.search(data.read(offset, _CHUNK + _OVERLAP))
        if match:
            pdb = parse_rsds(match[0])
            if pdb is not None:
                return Kernel(pdb)
    return None
