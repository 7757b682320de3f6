# SPDX-License-Identifier: Apache-2.0
"""The cheap question about a stack, and what the walk makes of it, on stacks laid out here word by word."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from tests.forge.stacks import Stack
from tests.support.triage_stacks import (
    BASE,
    FILTER,
    FILTER_EBP,
    IN_A_SLEEP,
    IN_EXIT,
    IN_FILTER,
    IN_SLEEP,
    IN_THE_FILTER,
    IN_WAIT,
    KERNEL32,
    LIMIT,
    MSCOREE,
    NTDLL,
    OUTERMOST,
    SP,
    WAITING,
    Walks,
    crashed,
    frame,
    is_suspect,
    stack_of,
    target_of,
    walk,
)
from tests.support.x86_saved import CONTEXT_IP
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.memory import PAGE_SIZE
from throwstack.core.registers import Registers
from throwstack.dispatch.saved_exception import Route
from throwstack.names.blockers import BlockerKind
from throwstack.stuck.triage import Triage


@pytest.mark.parametrize(
    ("word", "suspect"),
    [
        (IN_FILTER, True),
        (FILTER + 1, True),
        (FILTER, False),  # where the function starts is what data holds; no call has returned to it
        (FILTER + 0x4001, False),
        (KERNEL32.base + 0xBE95, False),
        (MSCOREE.base + 0x4FAB, True),
    ],
)
def test_a_word_inside_a_blocking_function_makes_a_suspect(word: int, suspect: bool):
    stack = Stack(LIMIT, BASE)
    stack.at(SP + 0x200).d32(word)
    assert is_suspect(stack) is suspect


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_an_address_at_an_unaligned_place_of_the_stack_makes_no_suspect(shift: int):
    data = bytearray(BASE - LIMIT)
    struct.pack_into("<I", data, SP - LIMIT + 0x200 + shift, IN_FILTER)
    assert not Triage(target_of({LIMIT: bytes(data)})).look_at(stack_of()).is_suspect


def test_an_unaligned_address_does_not_hide_an_aligned_one_after_it():
    data = bytearray(BASE - LIMIT)
    struct.pack_into("<I", data, SP - LIMIT + 0x201, IN_FILTER)
    struct.pack_into("<I", data, SP - LIMIT + 0x208, IN_FILTER)
    assert Triage(target_of({LIMIT: bytes(data)})).look_at(stack_of()).is_suspect


def test_words_below_the_stack_pointer_make_no_suspect():
    stack = Stack(LIMIT, BASE)
    stack.at(SP - 4).d32(IN_FILTER)
    assert not is_suspect(stack)
    assert is_suspect(stack, sp=SP - 4)


def test_without_registers_the_whole_stack_is_searched():
    stack = Stack(LIMIT, BASE)
    stack.at(LIMIT + 8).d32(IN_FILTER)
    assert is_suspect(stack, sp=None)


def test_absent_pages_do_not_end_the_search_of_a_stack():
    stack = Stack(LIMIT, BASE)
    stack.at(BASE - 0x100).d32(IN_FILTER)
    data = stack.data()
    there = {LIMIT: data[:0x2000], LIMIT + 0x5000: data[0x5000:0x6000], BASE - PAGE_SIZE: data[-PAGE_SIZE:]}
    assert Triage(target_of(there)).look_at(stack_of()).is_suspect


def test_a_stack_that_was_switched_to_is_searched_instead_of_the_one_of_the_teb():
    fiber, memory = 0x02000000, bytearray(PAGE_SIZE)
    struct.pack_into("<I", memory, 0x800, IN_FILTER)
    triage = Triage(target_of({fiber: bytes(memory), LIMIT: bytes(BASE - LIMIT)}))
    assert triage.look_at(stack_of(sp=fiber + 0x10)).is_suspect
    assert not triage.look_at(stack_of()).is_suspect


def test_a_walk_through_the_filter_finds_the_thread_stuck_on_its_argument():
    stack, saved = crashed()
    walks = {IN_WAIT: walk(WAITING, IN_THE_FILTER)}
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck
    assert stuck.blocked_in == (("kernel32", "UnhandledExceptionFilter"),)
    assert stuck.kinds == (BlockerKind.UNHANDLED_FILTER,)
    assert [item.context.address for item in stuck.exceptions] == [int(saved)]
    assert stuck.notes == ()


class FailsAtTheThrow(Walks):
    """An unwinder with a defect that shows on the stack that threw."""

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        if registers.ip == CONTEXT_IP:
            raise RecursionError
        return super().walk(registers, stack, trust=trust)


@pytest.mark.usefixtures("caught")
def test_an_exception_whose_throwing_walk_fails_is_reported_with_the_frame_that_threw():
    stack, saved = crashed()
    target = target_of({LIMIT: stack.data()})
    target = replace(target, unwinder=FailsAtTheThrow({IN_WAIT: walk(WAITING, IN_THE_FILTER)}))
    stuck = Triage(target).examine(stack_of()).stuck
    assert [item.context.address for item in stuck.exceptions] == [int(saved)]
    (throwing,) = stuck.throwing_walks
    assert [item.ip for item in throwing.frames] == [CONTEXT_IP]
    assert (throwing.end, throwing.detail) == (End.FAULT, "unexpected RecursionError")


def test_a_complete_walk_without_a_blocker_clears_the_thread_whatever_words_its_stack_has():
    stack, _ = crashed()
    walks = {IN_WAIT: walk(WAITING, IN_A_SLEEP, OUTERMOST), IN_FILTER: walk(IN_THE_FILTER)}
    triage = Triage(target_of({LIMIT: stack.data()}, walks))
    assert triage.look_at(stack_of()).is_suspect
    assert triage.examine(stack_of()).stuck is None


def zero_in_the_middle(*frames: Frame) -> Walk:
    """A walk that went wrong and came to a zero, which it takes for the return address of a start routine."""
    return Walk(frames, End.THREAD_START)


def test_a_walk_that_ends_at_a_zero_in_the_middle_of_the_stack_clears_nobody():
    """On x86 a callee whose code is absent, on x64 one damaged byte of unwind data, lead a walk astray."""
    stack, saved = crashed()
    walks = {IN_WAIT: zero_in_the_middle(WAITING, IN_A_SLEEP), IN_FILTER: walk(IN_THE_FILTER)}
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck
    assert stuck.exceptions[0].context.address == int(saved)
    assert stuck.notes[0] == "the walk of the blocked stack ends at 0x45b9020, far from its base at 0x45c0000"


def test_a_doubt_names_a_word_into_the_filter_after_a_zero_at_which_the_walk_ended():
    stack, _ = crashed()
    triage = Triage(target_of({LIMIT: stack.data()}, {IN_WAIT: zero_in_the_middle(WAITING, IN_A_SLEEP)}))
    found = triage.examine(stack_of())
    assert found.stuck is None
    assert found.doubts[-1].endswith("the word at 0x45ba74c leads to kernel32!UnhandledExceptionFilter+0x12a")


BROKEN = walk(WAITING, IN_A_SLEEP, end=End.NO_RETURN_ADDRESS)


def test_where_the_walk_ends_early_the_word_in_the_filter_is_walked_from_and_the_row_says_so():
    stack, saved = crashed()
    walks = {IN_WAIT: BROKEN, IN_FILTER: walk(IN_THE_FILTER)}
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck
    assert stuck.exceptions[0].context.address == int(saved)
    assert stuck.exceptions[0].routes[0] is Route.FILTER_ARGUMENT
    assert stuck.blocked_walk is BROKEN
    assert stuck.notes == (
        "the walk of the blocked stack ended early: no return address found",
        f"found by the word at {FILTER_EBP - 0x30:#x}, which may be of an earlier time",
    )


def test_words_on_the_part_of_the_stack_that_a_walk_has_covered_are_not_walked_from():
    stack, _ = crashed()
    further = frame(IN_SLEEP, FILTER_EBP + 0x100, FILTER_EBP + 0x140)
    walks = {IN_WAIT: walk(WAITING, further, end=End.NO_RETURN_ADDRESS), IN_FILTER: walk(IN_THE_FILTER)}
    assert Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck is None


def test_a_word_that_no_call_precedes_is_not_walked_from():
    stack, _ = crashed()
    code = b"\x90" * PAGE_SIZE
    walks = {IN_WAIT: BROKEN, IN_FILTER: walk(IN_THE_FILTER)}
    triage = Triage(target_of({LIMIT: stack.data(), IN_FILTER & -PAGE_SIZE: code}, walks))
    assert triage.examine(stack_of()).stuck is None


@pytest.mark.parametrize(("node", "is_stuck"), [(0x045BA800, True), (0x045BA000, False), (0x045BF000, False)])
def test_an_exception_without_a_nested_registration_is_no_longer_in_flight(node: int, is_stuck: bool):
    """While a handler is asked, the dispatcher's registration lies in the chain, between the filter and the CONTEXT."""
    stack, _ = crashed()
    stack.at(node).d32(0xFFFFFFFF, NTDLL.base + 0x1000)
    walks = {IN_WAIT: BROKEN, IN_FILTER: walk(IN_THE_FILTER)}
    triage = Triage(target_of({LIMIT: stack.data()}, walks))
    assert (triage.examine(stack_of(exception_list=node)).stuck is not None) is is_stuck


def test_a_note_says_that_the_registers_are_missing():
    stack, saved = crashed()
    walks = {IN_FILTER: walk(IN_THE_FILTER)}
    stuck = (
        Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of(sp=None, missing="trap frame is gone")).stuck
    )
    assert stuck.exceptions[0].context.address == int(saved)
    assert stuck.notes[0] == "trap frame is gone"
    assert stuck.blocked_walk is None


def test_a_thread_in_shutdown_without_a_dispatch_has_no_exception_whatever_pointers_its_stack_has():
    stack, _ = crashed()
    walks = {IN_WAIT: walk(WAITING, frame(IN_EXIT, SP + 0x20, SP + 0x40), OUTERMOST)}
    stack.at(SP + 0x44).d32(IN_EXIT)
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck
    assert stuck.kinds == (BlockerKind.SHUTDOWN,)
    assert stuck.exceptions == ()
    assert stuck.notes == ()


def test_blockers_of_a_walk_that_ended_early_and_of_the_stack_after_it_are_named_together():
    stack, _ = crashed()
    stack.at(SP + 0x44).d32(IN_EXIT)
    broken = walk(WAITING, frame(IN_EXIT, SP + 0x20, SP + 0x40), end=End.NO_RETURN_ADDRESS)
    walks = {IN_WAIT: broken, IN_FILTER: walk(IN_THE_FILTER)}
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck
    assert stuck.blocked_in == (("kernel32", "UnhandledExceptionFilter"), ("mscoree", "CorExitProcess"))
    assert len(stuck.exceptions) == 1
