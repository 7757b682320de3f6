# SPDX-License-Identifier: Apache-2.0
"""The locks for which threads wait: critical sections and SRW locks, laid out byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.forge.stacks import Stack
from throwstack.core.frames import Frame, StackBounds, Trust, Walk
from throwstack.core.memory import Memory, memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import SymbolKind, Symbols, SymbolTable
from throwstack.stuck.locks import LockKind, Locks
from throwstack.unwind.target import Target

NTDLL, ENTER, WAIT, SRW, DISPATCH = 0x7C800000, 0x1000, 0x2000, 0x3000, 0x4000
KERNEL32 = 0x77E40000
SECTION, DEBUG, STACK = 0x00407008, 0x00250040, 0x0012F000
OWNER, WAITER = 0x5E0, 0x5E4
NOWHERE = StackBounds(0, 1)


class NoUnwinder:
    """Stands where none is needed."""

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        raise NotImplementedError


def target_of(arch: Arch, memory: Memory) -> Target:
    """A process with an ntdll that has three functions."""
    modules = [Module("ntdll.dll", "", NTDLL, 0x10000), Module("kernel32.dll", "", KERNEL32, 0x10000)]
    images = ImageMap(memory, ModuleMap(modules))
    names = [(ENTER, "RtlEnterCriticalSection"), (WAIT, "RtlpWaitOnCriticalSection"), (SRW, "RtlAcquireSRWLockShared")]
    names.append((DISPATCH, "KiUserExceptionDispatcher"))
    table = SymbolTable(SymbolKind.PDB, names)
    return Target(arch, memory, images, Symbols(images, lambda _: table), NoUnwinder())


def section_x86(*, lock_count: int = -6, recursion: int = 1, owner: int = OWNER, debug: int = DEBUG) -> bytes:
    return struct.pack("<IiiIII", debug, lock_count, recursion, owner, 0x1C4, 0)


def frame_x86(rva: int, slot: int) -> Frame:
    registers = Registers(NTDLL + rva, (None, None, None, None, slot - 0x20, None, None, None))
    return Frame(registers, slot - 4, 0x401058, slot, Trust.PROLOGUE)


def waits_x86(section: bytes) -> Locks:
    """The locks of a process in which a thread passed SECTION to a function."""
    stack = Stack(STACK, STACK + 0x100).at(STACK + 0x20).d32(0x401058, SECTION)
    memory = memory_of({STACK: stack.data(), SECTION: section, DEBUG: struct.pack("<II", 0, SECTION)})
    return Locks(target_of(Arch.X86, memory), {OWNER, WAITER})


def test_an_x86_section_is_the_argument_of_the_function_that_enters_it():
    wait = waits_x86(section_x86()).wait([frame_x86(ENTER + 0x46, STACK + 0x20)], WAITER)
    assert wait is not None
    assert (wait.kind, wait.address, wait.owner, wait.is_lost) == (LockKind.CRITICAL_SECTION, SECTION, OWNER, False)
    assert str(wait) == "critical section 0x407008, owned by thread 1504, 1 waiting"


@pytest.mark.parametrize(
    ("lock_count", "waiters"),
    [
        (-22, 5),  # the example of Microsoft's documentation: locked, nobody woken, five wait
        (-6, 1),
        (-2, 0),  # held, and the waiter has not yet said so
        (0, 0),  # before Server 2003 SP1: held
        (2, 2),
    ],
)
def test_both_forms_of_the_lock_count_are_read(lock_count: int, waiters: int):
    wait = waits_x86(section_x86(lock_count=lock_count)).wait([frame_x86(ENTER + 0x46, STACK + 0x20)], WAITER)
    assert wait is not None
    assert (wait.owner, wait.waiters) == (OWNER, waiters)


@pytest.mark.parametrize(
    "section",
    [
        section_x86(lock_count=-1),  # free
        section_x86(lock_count=0x7FFFFFFF),
        section_x86(recursion=0),
        section_x86(recursion=-5),
        section_x86(owner=0),
        section_x86(owner=0x5E1),  # thread ids are multiples of 4
        section_x86(owner=WAITER),  # nobody waits for a section he has
        section_x86(debug=0x00260000),  # that says nothing of this section
        section_x86(debug=0, owner=0x9F0),  # without debug information an owner has to exist
        b"\0" * 24,
    ],
)
def test_bytes_that_are_no_section_in_use_are_not_reported(section: bytes):
    wait = waits_x86(section).wait([frame_x86(ENTER + 0x46, STACK + 0x20)], WAITER)
    assert wait is not None
    assert (wait.address, wait.owner) == (None, None)
    assert str(wait) == "critical section, it cannot be told which"


def test_an_owner_that_no_longer_exists_is_reported_as_lost():
    wait = waits_x86(section_x86(owner=0x9F0)).wait([frame_x86(ENTER + 0x46, STACK + 0x20)], WAITER)
    assert wait is not None
    assert str(wait) == "critical section 0x407008, owned by thread 2544, which no longer exists, 1 waiting"


def test_an_srw_lock_has_no_owner():
    wait = waits_x86(section_x86()).wait([frame_x86(SRW + 0x10, STACK + 0x20)], WAITER)
    assert wait is not None
    assert str(wait) == "SRW lock 0x407008, its owner is not recorded"


def test_frames_of_other_functions_wait_for_no_lock():
    locks = waits_x86(section_x86())
    assert locks.wait([], WAITER) is None
    elsewhere = Frame(Registers(0x401000, (0,) * 8), STACK, None, None, Trust.CONTEXT)
    assert locks.wait([elsewhere] * 40, WAITER) is None


@pytest.mark.parametrize(
    ("inner", "is_waiting"),
    [
        ([NTDLL + WAIT + 0x20], True),
        ([0x7FFE0304], True),  # SystemCallStub in SharedUserData
        ([KERNEL32 + 0x100], False),  # UnhandledExceptionFilter: it crashed as it entered
        ([NTDLL + 0x800, NTDLL + DISPATCH + 0xE], False),
        ([0x7FFE0304, 0x01230000], False),
    ],
)
def test_a_thread_that_was_interrupted_while_it_entered_a_section_does_not_wait_for_it(
    inner: list[int], is_waiting: bool
):
    above = [Frame(Registers(ip, (0,) * 8), STACK, None, None, Trust.CFI) for ip in inner]
    wait = waits_x86(section_x86()).wait([*above, frame_x86(ENTER + 0x46, STACK + 0x20)], WAITER)
    assert (wait is not None) is is_waiting


def section_x64(owner: int = OWNER, debug: int = 0xFFFFFFFFFFFFFFFF, lock_count: int = -6) -> bytes:
    return struct.pack("<QiiQQQ", debug, lock_count, 1, owner, 0, 0x20007D0)


def waits_x64(registers: Mapping[int, int], *, sections: Mapping[int, bytes], saved: int = 0) -> object:
    """What a thread waits for whose RtlEnterCriticalSection frame has `registers`, and `saved` on its stack."""
    sp, gpr = STACK + 0x20, [None] * 16
    for index, value in {4: sp, **registers}.items():
        gpr[index] = value
    memory = memory_of({STACK: struct.pack("<32Q", *[0] * 8, saved, *[0] * 23), **sections})
    frame = Frame(Registers(NTDLL + ENTER + 0x46, tuple(gpr)), sp, 0x401058, sp + 0x38, Trust.CFI)
    wait = Locks(target_of(Arch.X64, memory), {OWNER, WAITER}).wait([frame], WAITER)
    assert wait is not None
    return wait.address


def test_an_x64_section_comes_from_a_register_or_a_saved_word():
    assert waits_x64({3: 0x30008}, sections={0x30008: section_x64()}) == 0x30008
    assert waits_x64({}, sections={0x30008: section_x64()}, saved=0x30008) == 0x30008


def test_of_two_possible_x64_sections_none_is_chosen():
    both = {0x30008: section_x64(), 0x40008: section_x64()}
    assert waits_x64({3: 0x30008, 7: 0x40008}, sections=both) is None


def test_a_section_without_waiters_is_not_chosen_beside_one_with_waiters():
    idle = {0x30008: section_x64(lock_count=-2), 0x40008: section_x64()}
    assert waits_x64({3: 0x30008, 7: 0x40008}, sections=idle) == 0x40008


def test_a_section_to_which_its_debug_information_points_is_chosen_before_others():
    known = {0x30008: section_x64(), 0x40008: section_x64(debug=0x50000), 0x50000: struct.pack("<QQ", 0, 0x40008)}
    assert waits_x64({3: 0x30008, 7: 0x40008}, sections=known) == 0x40008


def test_an_x64_section_whose_owner_does_not_exist_is_not_reported():
    assert waits_x64({3: 0x30008}, sections={0x30008: section_x64(owner=0x9F0)}) is None


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.binary(min_size=24, max_size=24), st.lists(st.integers(0, (1 << 64) - 1), min_size=16, max_size=16))
def test_no_bytes_and_no_registers_make_the_search_for_locks_fail(section: bytes, values: list[int]):
    waits_x86(section).wait([frame_x86(ENTER + 0x46, STACK + 0x20)], WAITER)
    waits_x64(dict(enumerate(values)), sections={0x30000: section * 8})
