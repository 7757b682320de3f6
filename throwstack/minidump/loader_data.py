# SPDX-License-Identifier: Apache-2.0
"""Finds the memory that a debugger reads of every process: PEB, process parameters, the loader's list of modules.

The offsets are those of winternl.h where it has them, and have been the same from Windows XP to 11:

    PEB:                          Ldr, ProcessParameters
    PEB_LDR_DATA:                 InLoadOrderModuleList
    LDR_DATA_TABLE_ENTRY:         InLoadOrderLinks (first member), FullDllName, BaseDllName
    RTL_USER_PROCESS_PARAMETERS:  current directory, DLL path, image path, command line, window title, Environment
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.budgets import BUDGETS
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.minidump.dumped import Span

_PEB_SIZE, _LDR_SIZE = 0x800, 0x60
_MAX_STRING = 2048
_MAX_ENVIRONMENT = 1 << 16


@dataclass(frozen=True, slots=True)
class _Offsets:
    ldr: int
    parameters: int
    list_head: int
    names: tuple[int, ...]
    entry_size: int
    texts: tuple[int, ...]
    environment: int
    parameters_size: int


_OFFSETS = {
    Arch.X86: _Offsets(0x0C, 0x10, 0x0C, (0x24, 0x2C), 0xA8, (0x24, 0x30, 0x38, 0x40, 0x70), 0x48, 0x2A8),
    Arch.X64: _Offsets(0x18, 0x20, 0x10, (0x48, 0x58), 0x120, (0x38, 0x50, 0x60, 0x70, 0xB0), 0x80, 0x440),
}


def loader_data(memory: Memory, peb: int, arch: Arch) -> Iterator[Span]:
    """Yield the ranges of the PEB at `peb` and of what it leads to; a chain ends where memory is absent."""
    if not peb:
        return
    offsets, size = _OFFSETS[arch], arch.pointer_size
    yield Span(peb, peb + _PEB_SIZE)
    try:
        parameters = memory.pointer(peb + offsets.parameters, size)
        yield Span(parameters, parameters + offsets.parameters_size)
        for at in offsets.texts:
            yield from _string(memory, parameters + at, size)
        environment = memory.pointer(parameters + offsets.environment, size)
        text = memory.read_available(environment, _MAX_ENVIRONMENT)
        yield Span(environment, environment + (text.find(b"\0\0\0\0") + 1 or len(text)) + 4)
    except MemoryUnreadable:
        pass
    try:
        ldr = memory.pointer(peb + offsets.ldr, size)
        yield Span(ldr, ldr + _LDR_SIZE)
        head = ldr + offsets.list_head
        entry = memory.pointer(head, size)
        seen = {head}
        while entry not in seen and len(seen) <= BUDGETS.modules:
            seen.add(entry)
            yield Span(entry, entry + offsets.entry_size)
            for at in offsets.names:
                yield from _string(memory, entry + at, size)
            entry = memory.pointer(entry, size)
    except MemoryUnreadable:
        return


def _string(memory: Memory, address: int, size: int) -> Iterator[Span]:
    """Yield the range of the text of the UNICODE_STRING at `address`; nothing if it is absent."""
    try:
        length, buffer = memory.u16(address), memory.pointer(address + size, size)
    except MemoryUnreadable:
        return
    if buffer and length:
        yield Span(buffer, buffer + min(length, _MAX_STRING) + 2)
