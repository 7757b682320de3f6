# SPDX-License-Identifier: Apache-2.0
"""CONTEXT records as bytes: raw as they are in memory, or made from the registers that are known (winnt.h).

ContextFlags says which groups of registers a CONTEXT has. A group that is not known is left out of them. Most threads
of x64 wait in a system call. The kernel saves their nonvolatile registers and not the volatile ones (rax, rcx, …),
which are of no use after the call. A debugger that finds no integer registers in ContextFlags would not unwind at all.
So the group is there if all nonvolatile registers are known, and `MadeContext.unknown` names the others, whose bytes
are zero.

A CONTEXT with extended state (AVX and later) is followed by a CONTEXT_EX, three pairs (offset from CONTEXT_EX, size):
of all of it, of the CONTEXT, of the XSAVE area, which may be anywhere after it. The streams get the CONTEXT alone,
without the bit for extended state, as dbghelp writes it unless it is asked for more: Breakpad of today takes no longer
one on x86, and that of some years ago none on x64. The area is in the process's memory, and a small minidump has it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.core.registers import BP, SP, Arch, Registers
from throwstack.minidump.dumped import MadeContext, Span

_CONTROL, _INTEGER, _SEGMENTS, _FLOATING_POINT, _DEBUG, _EXTENDED = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
_XSTATE = 0x40
_REPORTING = 0xF8000000
"""CONTEXT_EXCEPTION_ACTIVE and others: how the kernel was entered, and of no register. Breakpad takes no CONTEXT with
them for one of x64."""
_CONTEXT_EX = struct.Struct("<iIiIiI")
_MIN_XSTATE, _MAX_XSTATE = 64, 1 << 14


@dataclass(frozen=True, slots=True)
class _Layout:
    """Offsets of a CONTEXT's members, and for each flag its name and the parts that belong to it, as (start, end)."""

    gpr: tuple[int, ...]
    segments: tuple[tuple[str, int], ...]
    eflags: int
    segment_size: int
    groups: dict[int, tuple[str, tuple[tuple[int, int], ...]]]


_LAYOUTS = {
    Arch.X86: _Layout(
        gpr=(0xB0, 0xAC, 0xA8, 0xA4, 0xC4, 0xB4, 0xA0, 0x9C),
        segments=(("gs", 0x8C), ("fs", 0x90), ("es", 0x94), ("ds", 0x98), ("cs", 0xBC), ("ss", 0xC8)),
        eflags=0xC0,
        segment_size=4,
        groups={
            _CONTROL: ("control registers", ((0xB4, 0xCC),)),
            _INTEGER: ("integer registers", ((0x9C, 0xB4),)),
            _SEGMENTS: ("segment registers", ((0x8C, 0x9C),)),
            _FLOATING_POINT: ("floating point registers", ((0x1C, 0x8C),)),
            _DEBUG: ("debug registers", ((0x4, 0x1C),)),
            _EXTENDED: ("XMM registers", ((0xCC, 0x2CC),)),
        },
    ),
    Arch.X64: _Layout(
        gpr=tuple(0x78 + 8 * number for number in range(16)),
        segments=(("cs", 0x38), ("ds", 0x3A), ("es", 0x3C), ("fs", 0x3E), ("gs", 0x40), ("ss", 0x42)),
        eflags=0x44,
        segment_size=2,
        groups={
            _CONTROL: ("control registers", ((0x38, 0x3A), (0x42, 0x48), (0x98, 0xA0), (0xF8, 0x100))),
            _INTEGER: ("integer registers", ((0x78, 0x98), (0xA0, 0xF8))),
            _SEGMENTS: ("segment registers", ((0x3A, 0x42),)),
            _FLOATING_POINT: ("floating point and XMM registers", ((0x34, 0x38), (0x100, 0x300))),
            _DEBUG: ("debug registers", ((0x48, 0x78),)),
        },
    ),
}


def empty_context(arch: Arch) -> bytes:
    """Return a CONTEXT whose ContextFlags name the architecture and no register."""
    data = bytearray(arch.facts.context_size)
    struct.pack_into("<I", data, arch.facts.context_flags_at, arch.facts.context_flag)
    return bytes(data)


def made_context(arch: Arch, registers: Registers, others: dict[str, int] | None = None) -> MadeContext:
    """Make a CONTEXT from registers; `others` are selectors (`cs`, …) and `eflags`, as far as they are known."""
    others, layout, facts = others or {}, _LAYOUTS[arch], arch.facts
    data = bytearray(facts.context_size)
    unknown = [name for name, value in zip(arch.register_names, registers.gpr, strict=False) if value is None]
    for at, value in zip(layout.gpr, registers.gpr, strict=False):
        _put(data, at, facts.pointer_size, value or 0)
    _put(data, facts.context_ip_at, facts.pointer_size, registers.ip)
    for name, at in layout.segments:
        _put(data, at, layout.segment_size, others.get(name, 0))
    _put(data, layout.eflags, 4, others.get("eflags", 0))
    unknown += [name for name in ("cs", "ss", "eflags") if name not in others]
    flags = facts.context_flag
    if registers.gpr[SP] is not None and (arch is Arch.X64 or registers.gpr[BP] is not None):
        flags |= _CONTROL
    if all(registers.gpr[number] is not None for number in facts.nonvolatile):
        flags |= _INTEGER
    if all(name in others for name in ("ds", "es", "fs", "gs")):
        flags |= _SEGMENTS
    _put(data, facts.context_flags_at, 4, flags)
    return MadeContext(bytes(data), tuple(unknown))


def raw_context(memory: Memory, address: int, arch: Arch) -> MadeContext:
    """Return the CONTEXT at `address` as it is in memory.

    Groups of registers that are on absent pages are taken out of ContextFlags, and `unknown` names them. Raises
    `MemoryUnreadable` if ContextFlags or the instruction pointer are absent.
    """
    facts, layout = arch.facts, _LAYOUTS[arch]
    flags = memory.u32(address + facts.context_flags_at) & ~_REPORTING
    memory.read(address + facts.context_ip_at, facts.pointer_size)
    data, absent = _read_around_gaps(memory, address, facts.context_size)
    unknown: list[str] = []
    for flag, (name, parts) in layout.groups.items():
        if flags & flag and _overlap(parts, absent):
            flags &= ~flag
            unknown.append(name)
    extended = None
    if flags & _XSTATE:
        flags &= ~_XSTATE
        extended = _extended_state(memory, address + facts.context_size, facts.context_size)
        if extended is None:
            unknown.append("extended state (AVX)")
    _put(data, facts.context_flags_at, 4, flags)
    return MadeContext(bytes(data), tuple(unknown), extended)


def _extended_state(memory: Memory, address: int, context_size: int) -> Span | None:
    """Return where the XSAVE area of a CONTEXT is, whose CONTEXT_EX is at `address`.

    None if the CONTEXT_EX makes no sense or the area cannot be read.
    """
    try:
        _, _, legacy, _, offset, size = _CONTEXT_EX.unpack(memory.read(address, _CONTEXT_EX.size))
        if legacy != -context_size or not _MIN_XSTATE <= size <= _MAX_XSTATE:
            return None
        memory.read(address + offset, size)
    except MemoryUnreadable:
        return None
    return Span(address + offset, address + offset + size)


def _read_around_gaps(memory: Memory, address: int, size: int) -> tuple[bytearray, list[tuple[int, int]]]:
    """Return `size` bytes with zeros for absent ones, and the absent parts as pairs of offsets (start, end)."""
    data, absent, at = bytearray(size), [], 0
    while at < size:
        length = min(PAGE_SIZE - (address + at) % PAGE_SIZE, size - at)
        found = memory.read_available(address + at, length)
        data[at : at + len(found)] = found
        if len(found) < length:
            absent.append((at, at + length))
        at += length
    return data, absent


def _overlap(parts: Iterable[tuple[int, int]], absent: Iterable[tuple[int, int]]) -> bool:
    gaps = list(absent)
    return any(start < gap_end and gap_start < end for start, end in parts for gap_start, gap_end in gaps)


def _put(data: bytearray, at: int, size: int, value: int) -> None:
    data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
