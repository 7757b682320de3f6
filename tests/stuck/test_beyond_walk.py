# SPDX-License-Identifier: Apache-2.0
"""A guess proves nothing: the stack from the last proven frame on is looked at word by word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.forge.stacks import Label, Stack
from tests.support.triage_stacks import (
    BASE,
    IN_A_SLEEP,
    IN_EXIT,
    IN_FILTER,
    IN_SLEEP,
    IN_THE_FILTER,
    IN_WAIT,
    KERNEL32,
    LIMIT,
    NTDLL,
    OUTERMOST,
    SP,
    WAITING,
    crashed,
    frame,
    registers,
    stack_of,
    target_of,
    walk,
)
from tests.support.x86_saved import CONTEXT_IP, put_context, put_record
from throwstack.core.exception_record import UNWINDING
from throwstack.core.frames import End, Frame, Trust, Walk
from throwstack.dispatch.saved_exception import Route
from throwstack.stuck.triage import Examination, Triage
from throwstack.unwind.thread_start import overwritten

PRIVATE = 0x00900010
"""Code of no module, such as a copy of a system call's stub."""
IN_PRIVATE = frame(PRIVATE, SP, SP + 0x10)
GUESSED = replace(OUTERMOST, trust=Trust.SCAN)
IN_RAISE = NTDLL.base + 0x285FF + 0x3D


FOLLOWED = replace(OUTERMOST, trust=Trust.PROLOGUE)
"""The caller of code that was followed to its return."""


@pytest.mark.parametrize(
    "frames",
    [(WAITING, GUESSED), (WAITING, IN_A_SLEEP, GUESSED), (IN_PRIVATE, OUTERMOST), (IN_PRIVATE, FOLLOWED)],
)
def test_a_guess_that_jumps_over_the_filter_and_reaches_the_threads_start_clears_nobody(frames: tuple[Frame, ...]):
    """The step from code of no module by ebp is a guess too: ebp may be that of a function further out."""
    stack, saved = crashed()
    walks = {IN_WAIT: walk(*frames), IN_FILTER: walk(IN_THE_FILTER)}
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck
    assert [item.context.address for item in stuck.exceptions] == [int(saved)]
    assert stuck.notes[0] == f"the walk of the blocked stack is a guess from {frames[-1].ip:#x} on"


@pytest.mark.parametrize("frames", [(IN_PRIVATE, replace(OUTERMOST, trust=Trust.CFI)), (WAITING, FOLLOWED)])
def test_the_caller_of_private_code_is_proven_by_unwind_data_and_that_of_a_function_by_its_code(
    frames: tuple[Frame, ...],
):
    stack, _ = crashed()
    walks = {IN_WAIT: walk(*frames), IN_FILTER: walk(IN_THE_FILTER)}
    assert Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()) == Examination(None)


def test_the_caller_of_followed_private_code_is_proven_if_nothing_further_out_needs_its_frame_pointer():
    stack, _ = crashed()
    walks = {IN_WAIT: walk(IN_PRIVATE, FOLLOWED), FOLLOWED.ip: walk(replace(FOLLOWED, trust=Trust.SCAN))}
    assert Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()) == Examination(None)


@pytest.mark.parametrize(("lost", "is_sound"), [(OUTERMOST.return_slot, True), (WAITING.return_slot, False)])
def test_a_walk_that_ends_at_the_base_is_proven_although_its_last_word_is_no_return_address(lost: int, is_sound: bool):
    """Wine starts threads of WoW64 as if 0xc had called."""
    stack, _ = crashed()
    ended = Walk((WAITING, OUTERMOST), End.LOST_RETURN_ADDRESS, overwritten(lost))
    found = Triage(target_of({LIMIT: stack.data()}, {IN_WAIT: ended})).examine(stack_of())
    assert (found == Examination(None)) is is_sound


def test_words_below_the_last_proven_frame_are_not_looked_at():
    stack, _ = crashed()
    proven = frame(IN_A_SLEEP.ip, IN_THE_FILTER.sp + 0x100, IN_THE_FILTER.sp + 0x140)
    walks = {IN_WAIT: walk(WAITING, proven, GUESSED), IN_FILTER: walk(IN_THE_FILTER)}
    assert Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()) == Examination(None)


def raised(*, is_registered: bool) -> tuple[Stack, int]:
    """A stack with the frame of RtlRaiseException, which no walk reaches; and the node of the thread's registrations.

    ExecuteHandler's registration is {next, handler in ntdll, the registration asked}; its arguments follow.
    """
    stack, record, saved = Stack(LIMIT, BASE), Label("record"), Label("context")
    ebp, node, last = 0x045BAB58, 0x045BA780, BASE - 0x24
    stack.at(0x045BA870).d32(IN_RAISE)
    stack.at(ebp + 4).d32(CONTEXT_IP, record)
    put_context(stack, 0x045BA888, saved)
    put_record(stack, 0x045BAB68, record)
    stack.at(last).d32(0xFFFFFFFF, NTDLL.base + 0x1000)
    stack.at(node).d32(last, NTDLL.base + 0x5000, last)
    stack.at(node + 0x14).d32(record, last, saved, 0)
    return stack, node if is_registered else last


RAISING = replace(frame(IN_RAISE, 0x045BA874, 0x045BAB58), return_address=CONTEXT_IP, trust=Trust.SCAN)


@pytest.mark.parametrize("frames", [(WAITING, GUESSED), (WAITING, IN_A_SLEEP, OUTERMOST)])
def test_a_registration_of_executehandler_proves_a_dispatch_whatever_the_walk_has(frames: tuple[Frame, ...]):
    """The filter of a function runs with the function's ebp: from there a walk goes far beyond the dispatcher."""
    stack, head = raised(is_registered=True)
    target = target_of({LIMIT: stack.data()}, {IN_WAIT: walk(*frames)})
    stuck = Triage(target).examine(stack_of(exception_list=head)).stuck
    assert stuck.exceptions[0].routes[0] is Route.REGISTRATION
    assert stuck.notes == ()


def test_a_word_in_the_dispatcher_is_no_doubt_if_executehandlers_registration_is_unlinked():
    """Its arguments are on the stack, and its registration is not in the chain: the exception was taken."""
    stack, head = raised(is_registered=False)
    walks = {IN_WAIT: walk(WAITING, GUESSED), IN_RAISE: walk(RAISING)}
    found = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of(exception_list=head))
    assert found == Examination(None)


def test_where_nothing_decides_a_word_in_the_dispatcher_is_a_doubt():
    stack, _ = raised(is_registered=True)
    walks = {IN_WAIT: walk(WAITING, GUESSED), IN_RAISE: walk(RAISING)}
    found = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of())
    assert found.stuck is None
    (doubt,) = found.doubts
    assert doubt == (
        f"the walk of the blocked stack is a guess from {GUESSED.ip:#x} on; the word at 0x45ba870 leads to "
        "ntdll!RtlRaiseException+0x3d, where exception 0xe06d7363 was dispatched"
    )


def test_a_walk_that_breaks_off_in_the_dispatcher_is_a_doubt():
    """The return address of NtRaiseException was overwritten: nothing leads to the dispatcher's CONTEXT."""
    in_raise = replace(WAITING, registers=registers(IN_RAISE, SP))
    walks = {IN_RAISE: walk(in_raise, end=End.BAD_RETURN_ADDRESS)}
    given = replace(stack_of(), registers=registers(IN_RAISE, SP))
    found = Triage(target_of({LIMIT: Stack(LIMIT, BASE).data()}, walks)).examine(given)
    assert found.stuck is None
    assert found.doubts[-1].endswith(f"the frame at {IN_RAISE:#x} is in the dispatcher of exceptions")


@pytest.mark.parametrize("frames", [(WAITING, GUESSED), (IN_PRIVATE, FOLLOWED)])
@pytest.mark.parametrize(
    "ending", [(End.THREAD_START, ""), (End.LOST_RETURN_ADDRESS, overwritten(GUESSED.return_slot))]
)
def test_a_guess_on_a_stack_that_leads_nowhere_is_no_doubt(frames: tuple[Frame, ...], ending: tuple[End, str]):
    """Neither is a wait in a stub of a hook."""
    stack = Stack(LIMIT, BASE)
    stack.at(SP + 0x200).d32(IN_EXIT)
    walks = {IN_WAIT: Walk(frames, *ending)}
    triage = Triage(target_of({LIMIT: stack.data()}, walks))
    assert triage.look_at(stack_of()).is_suspect
    assert triage.examine(stack_of()) == Examination(None)


CALL = b"\xcc" * 0x20 + b"\xe8\0\0\0\0"
RETURN = KERNEL32.base + 0x50025


@pytest.mark.parametrize(("above", "is_doubted"), [(RETURN, True), (RETURN + 0x100, False), (0, False)])
def test_a_0_with_a_return_address_above_it_is_not_the_end_of_the_stack(above: int, is_doubted: bool):
    """A buffer was cleared far beyond its end: the return address is 0 now, and its caller's frame is still there."""
    stack = Stack(LIMIT, BASE)
    stack.at(SP + 0x200).d32(IN_EXIT)
    stack.at(BASE - 0x20).d32(above)
    ends = frame(IN_SLEEP, BASE - 0x100, BASE - 0xD4)
    memory = {LIMIT: stack.data(), RETURN & -0x1000: CALL.ljust(0x1000, b"\xcc")}
    found = Triage(target_of(memory, {IN_WAIT: walk(WAITING, ends)})).examine(stack_of())
    doubt = f"the walk of the blocked stack ends below a return address at {BASE - 0x20:#x}"
    assert found == Examination(None, (doubt,) if is_doubted else ())


@pytest.mark.parametrize(
    ("frames", "end", "is_doubted"),
    [
        ((WAITING, IN_A_SLEEP), End.BAD_RETURN_ADDRESS, True),
        ((WAITING, IN_A_SLEEP), End.UNREADABLE, True),
        ((WAITING, IN_A_SLEEP), End.NO_RETURN_ADDRESS, False),
        ((WAITING,), End.NO_RETURN_ADDRESS, True),
    ],
)
def test_a_suspects_walk_that_breaks_off_is_a_doubt_unless_there_was_nothing_to_go_by(
    frames: tuple[Frame, ...], end: End, is_doubted: bool
):
    """In the system call that a thread waits in, there always is something to go by: its return address is at esp."""
    stack = Stack(LIMIT, BASE)
    stack.at(SP + 0x200).d32(IN_EXIT)
    found = Triage(target_of({LIMIT: stack.data()}, {IN_WAIT: walk(*frames, end=end)})).examine(stack_of())
    doubt = f"the walk of the blocked stack ended early: {end.value}"
    assert found == Examination(None, (doubt,) if is_doubted else ())


@pytest.mark.parametrize(("word", "is_doubted"), [(IN_EXIT, True), (IN_EXIT + 1, False), (IN_SLEEP, False)])
@pytest.mark.parametrize(
    ("broken", "ending"),
    [
        (walk(WAITING, IN_A_SLEEP, end=End.NO_RETURN_ADDRESS), "ended early: no return address found"),
        (walk(IN_PRIVATE, FOLLOWED), f"is a guess from {FOLLOWED.ip:#x} on"),
    ],
    ids=["nothing to go by", "private stub"],
)
def test_a_return_address_into_a_blocking_function_is_a_doubt_where_a_walk_may_have_missed_it(
    broken: Walk, ending: str, word: int, is_doubted: bool
):
    """The return address of a thread that hangs in CorExitProcess was overwritten, or a walk that begins in private
    code has jumped over its frame. A word that no call is before is data."""
    stack = Stack(LIMIT, BASE)
    stack.at(SP + 0x200).d32(word)
    page = bytearray(b"\xcc" * 0x1000)
    page[IN_EXIT % 0x1000 - 5] = 0xE8
    walks = {
        IN_WAIT: broken,
        word: walk(frame(word, SP + 0x204, SP + 0x240)),
    }
    found = Triage(target_of({LIMIT: stack.data(), IN_EXIT & -0x1000: bytes(page)}, walks)).examine(stack_of())
    doubt = f"the walk of the blocked stack {ending}; the word at 0x45b9200 leads to "
    assert found == Examination(None, (f"{doubt}mscoree!CorExitProcess+0x46",) if is_doubted else ())


def test_the_doubt_about_a_thread_without_registers_says_that_there_is_no_walk():
    stack = Stack(LIMIT, BASE)
    stack.at(SP + 0x200).d32(IN_EXIT)
    page = bytearray(b"\xcc" * 0x1000)
    page[IN_EXIT % 0x1000 - 5] = 0xE8
    memory = {LIMIT: stack.data(), IN_EXIT & -0x1000: bytes(page)}
    walks = {IN_EXIT: walk(frame(IN_EXIT, SP + 0x204, SP + 0x240))}
    found = Triage(target_of(memory, walks)).examine(replace(stack_of(), registers=None))
    doubt = "there is no walk of the blocked stack; the word at 0x45b9200 leads to mscoree!CorExitProcess+0x46"
    assert found == Examination(None, (doubt,))


def raise_on(stack: Stack, at: int, code: int) -> Frame:
    """The frame of RtlRaiseException that raises `code`, with its CONTEXT and record; its return address is at `at`."""
    record, saved, ebp = Label("record"), Label("context"), at + 0x300
    stack.at(at).d32(IN_RAISE)
    stack.at(ebp + 4).d32(CONTEXT_IP, record)
    put_context(stack, at + 0x10, saved, esp=ebp + 12)
    put_record(stack, ebp + 0x10, record, code=code)
    return replace(frame(IN_RAISE, at + 4, ebp), return_address=CONTEXT_IP)


INNER, OUTER = SP + 0x1000, SP + 0x3000


JUMPED_OVER = "the word at 0x45ba000 leads to ntdll!RtlRaiseException+0x3d, where exception 0xe06d7363 was dispatched"
RAISING_AGAIN = frame(IN_RAISE, SP, SP + 0x10)


@pytest.mark.parametrize(
    ("innermost", "trust", "says"),
    [
        (WAITING, Trust.SCAN, JUMPED_OVER),
        (WAITING, Trust.FRAME_POINTER, ""),
        (RAISING_AGAIN, Trust.SCAN, f"the frame at {IN_RAISE:#x} is in the dispatcher of exceptions"),
    ],
    ids=["jumped over", "all proven", "lost in the dispatcher"],
)
def test_an_exception_further_in_that_a_guess_may_have_missed_is_a_doubt_of_the_row(
    innermost: Frame, trust: Trust, says: str
):
    """A crash filter faults, and the walk misses the dispatch of this second fault."""
    stack = Stack(LIMIT, BASE)
    first = replace(raise_on(stack, OUTER, 0xC0000005), trust=trust)
    second = raise_on(stack, INNER, 0xE06D7363) if innermost is WAITING else WAITING
    walks = {innermost.ip: walk(innermost, first, OUTERMOST), (IN_RAISE, INNER + 4): walk(second)}
    given = replace(stack_of(), registers=innermost.registers)
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(given).stuck
    assert [item.record.code for item in stuck.exceptions] == [0xC0000005]
    assert bool(stuck.notes) == bool(says)
    assert says in "".join(stuck.notes)


@pytest.mark.parametrize(
    ("flags", "at", "is_doubted"),
    [(0, INNER, True), (UNWINDING, INNER, False), (0, OUTER + 0x400, False)],
    ids=["jumped over", "unwound", "further out"],
)
def test_the_context_of_an_exception_that_a_guess_jumped_over_is_a_doubt_of_the_row(
    flags: int, at: int, is_doubted: bool
):
    """The return address into the dispatcher was overwritten, and the function that it has called has no name."""
    stack, record, saved = Stack(LIMIT, BASE), Label("record"), Label("context")
    first = replace(raise_on(stack, OUTER, 0xC0000005), trust=Trust.SCAN)
    put_context(stack, at, saved, esp=at + 0x380)
    put_record(stack, at + 0x300, record, code=0xC0000094, flags=flags)
    target = target_of({LIMIT: stack.data()}, {IN_WAIT: walk(WAITING, first, OUTERMOST)})
    stuck = Triage(target).examine(stack_of()).stuck
    assert [item.record.code for item in stuck.exceptions] == [0xC0000005]
    says = f"exception 0xc0000094 is at {at + 0x300:#x}"
    assert any(note.endswith(says) for note in stuck.notes) is is_doubted


THREW_AGAIN = frame(CONTEXT_IP, INNER + 0x320, INNER + 0x340)


@pytest.mark.parametrize(
    ("throwing", "says"),
    [
        (walk(THREW_AGAIN, end=End.BAD_RETURN_ADDRESS), "where exception 0xc0000005 was dispatched"),
        (walk(THREW_AGAIN, OUTERMOST), ""),
    ],
)
def test_an_exception_further_out_that_the_walk_of_the_throwing_stack_may_have_missed_is_a_doubt(
    throwing: Walk, says: str
):
    """A vectored handler faults, and on the stack that threw the return address from the first dispatch is lost."""
    stack = Stack(LIMIT, BASE)
    second, first = raise_on(stack, INNER, 0xE06D7363), raise_on(stack, OUTER, 0xC0000005)
    walks = {
        IN_WAIT: walk(WAITING, second, OUTERMOST),
        CONTEXT_IP: throwing,
        (IN_RAISE, OUTER + 4): walk(first),
    }
    stuck = Triage(target_of({LIMIT: stack.data()}, walks)).examine(stack_of()).stuck
    assert [item.record.code for item in stuck.exceptions] == [0xE06D7363]
    assert [says in note for note in stuck.notes] == [True] * bool(says)
