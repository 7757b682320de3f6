# SPDX-License-Identifier: Apache-2.0
"""CONTEXTs: which groups ContextFlags name, what is unknown, and extended state."""

from __future__ import annotations

import struct

import pytest

from throwstack.core.memory import Memory, MemoryUnreadable, SegmentSource
from throwstack.core.registers import Arch, Registers
from throwstack.minidump.dumped import Span
from throwstack.minidump.thread_context import empty_context, made_context, raw_context

ALL_OF_X64 = 0x10005F
ALL_OF_X86 = 0x1007F
SELECTORS = {"cs": 0x33, "ss": 0x2B, "ds": 0x2B, "es": 0x2B, "fs": 0x53, "gs": 0x2B, "eflags": 0x246}


def flags_of(data: bytes, arch: Arch) -> int:
    return struct.unpack_from("<I", data, arch.facts.context_flags_at)[0]


def test_an_empty_context_names_no_register():
    assert (len(empty_context(Arch.X86)), flags_of(empty_context(Arch.X86), Arch.X86)) == (716, 0x10000)
    assert (len(empty_context(Arch.X64)), flags_of(empty_context(Arch.X64), Arch.X64)) == (1232, 0x100000)


def test_a_context_of_x64_has_its_registers_where_winnt_h_says():
    made = made_context(Arch.X64, Registers(0x7FF600001000, tuple(range(100, 116))), SELECTORS)
    assert made.unknown == ()
    assert flags_of(made.data, Arch.X64) == 0x100007
    names = (*Arch.X64.register_names, "rip")
    found = dict(zip(names, struct.unpack_from("<17Q", made.data, 0x78), strict=True))
    assert found == {**dict(zip(names, range(100, 116), strict=False)), "rip": 0x7FF600001000}
    assert struct.unpack_from("<6HI", made.data, 0x38) == (0x33, 0x2B, 0x2B, 0x53, 0x2B, 0x2B, 0x246)


def test_a_context_of_x86_has_its_registers_where_winnt_h_says():
    made = made_context(Arch.X86, Registers(0x401000, (1, 2, 3, 4, 5, 6, 7, 8)), {**SELECTORS, "cs": 0x1B, "ss": 0x23})
    edi, esi, ebx, edx, ecx, eax, ebp, eip, cs, eflags, esp, ss = struct.unpack_from("<12I", made.data, 0x9C)
    assert (eax, ecx, edx, ebx, esp, ebp, esi, edi) == (1, 2, 3, 4, 5, 6, 7, 8)
    assert (eip, cs, eflags, ss) == (0x401000, 0x1B, 0x246, 0x23)


def test_volatile_registers_that_are_not_known_are_named():
    """A thread that waits in a system call of x64: the kernel saves its nonvolatile registers only."""
    gpr = [None, None, None, 3, 4, 5, 6, 7, None, None, None, None, 12, 13, 14, 15]
    made = made_context(Arch.X64, Registers(1, tuple(gpr)), SELECTORS)
    assert made.unknown == ("rax", "rcx", "rdx", "r8", "r9", "r10", "r11")
    assert flags_of(made.data, Arch.X64) == 0x100007


def test_without_all_nonvolatile_registers_the_group_is_left_out():
    gpr = [0] * 16
    gpr[14] = None
    made = made_context(Arch.X64, Registers(1, tuple(gpr)), SELECTORS)
    assert made.unknown == ("r14",)
    assert flags_of(made.data, Arch.X64) == 0x100005


def test_selectors_and_flags_that_are_not_known_are_named():
    made = made_context(Arch.X64, Registers(1, (0,) * 16), {"cs": 0x33, "ss": 0x2B})
    assert made.unknown == ("eflags",)
    assert flags_of(made.data, Arch.X64) == 0x100003


def x64_context(flags: int = ALL_OF_X64) -> bytes:
    data = bytearray(bytes(range(1, 255)) * 5)[:0x4D0]
    struct.pack_into("<I", data, 0x30, flags)
    return bytes(data)


def test_a_context_in_memory_is_copied_as_it_is():
    data = x64_context(ALL_OF_X64 & ~0x40)
    made = raw_context(Memory(SegmentSource({0x10F80: data})), 0x10F80, Arch.X64)
    assert made.data == data
    assert made.unknown == ()
    assert made.extended is None


def test_groups_on_an_absent_page_are_taken_out():
    """The CONTEXT begins 0x120 bytes before the end of a page; what is from its offset 0x120 on is absent."""
    data = x64_context(ALL_OF_X64 & ~0x40)
    made = raw_context(Memory(SegmentSource({0x10EE0: data[:0x120]})), 0x10EE0, Arch.X64)
    assert made.unknown == ("floating point and XMM registers",)
    assert flags_of(made.data, Arch.X64) == 0x100017
    assert made.data[0x120:] == bytes(0x4D0 - 0x120)


def test_without_the_instruction_pointer_there_is_no_context():
    with pytest.raises(MemoryUnreadable):
        raw_context(Memory(SegmentSource({0x10F40: x64_context()[:0xC0]})), 0x10F40, Arch.X64)


def with_extension(context: bytes, size: int, distance: int, area: bytes) -> dict[int, bytes]:
    """A CONTEXT at 0x20000, CONTEXT_EX after it, and the XSAVE area `distance` bytes after the CONTEXT_EX."""
    end = 0x20000 + size
    extension = struct.pack("<iIiIiI", -size, distance + len(area), -size, size, distance, len(area))
    return {0x20000: context, end: extension, end + distance: area}


@pytest.mark.parametrize(("arch", "flags"), [(Arch.X86, ALL_OF_X86), (Arch.X64, ALL_OF_X64)])
def test_extended_state_stays_in_memory_and_its_place_is_known(arch: Arch, flags: int):
    size = arch.facts.context_size
    context = bytearray(size)
    struct.pack_into("<I", context, arch.facts.context_flags_at, flags)
    memory = Memory(SegmentSource(with_extension(bytes(context), size, 0x1234, bytes(320))))
    made = raw_context(memory, 0x20000, arch)
    assert len(made.data) == size
    assert flags_of(made.data, arch) == flags & ~0x40
    assert made.unknown == ()
    assert made.extended == Span(0x20000 + size + 0x1234, 0x20000 + size + 0x1234 + 320)


@pytest.mark.parametrize("length", [0, 63, 0x4001, 0xFFFFFFFF])
def test_an_extension_that_makes_no_sense_is_named(length: int):
    parts = with_extension(x64_context(), 0x4D0, 0x40, b"")
    parts[0x204D0] = struct.pack("<iIiIiI", -0x4D0, 0, -0x4D0, 0x4D0, 0x40, length)
    made = raw_context(Memory(SegmentSource(parts)), 0x20000, Arch.X64)
    assert made.unknown == ("extended state (AVX)",)
    assert made.data[0x34:] == x64_context()[0x34:]
    assert flags_of(made.data, Arch.X64) == ALL_OF_X64 & ~0x40


def test_flags_that_are_of_no_register_are_taken_out():
    """CONTEXT_EXCEPTION_ACTIVE, for example: .NET 10 raises its exceptions with it."""
    made = raw_context(Memory(SegmentSource({0x20000: x64_context(0x0810000F)})), 0x20000, Arch.X64)
    assert flags_of(made.data, Arch.X64) == 0x10000F
