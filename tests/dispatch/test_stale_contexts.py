# SPDX-License-Identifier: Apache-2.0
"""Which CONTEXTs on a stack are left from exceptions that are over, by the frame that they are in.

The thread of these tests has frames at `SPS`, innermost first. What the frame that holds the CONTEXT keeps there by
Windows' own design decides.
"""

from __future__ import annotations

import pytest

from tests.support.given_names import GivenNames
from tests.support.targets import GivenWalk
from tests.support.x64_saved import frame
from throwstack.core.contexts import Context
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import End, StackBounds, Trust, Walk
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.dispatch.stale_contexts import is_stale
from throwstack.images.image import ImageMap
from throwstack.images.modules import ModuleMap
from throwstack.unwind.target import Target

LIMIT, BASE = 0x10000, 0x20000
SPS = (0x11000, 0x12000, 0x13000, 0x14000)
DISPATCHER, FILTER = "KiUserExceptionDispatch", "kernel32!UnhandledExceptionFilter"
WAITS, MAIN = "NtWaitForSingleObject", "app!main"


def at(address: int) -> SavedException:
    registers = Registers.named(Arch.X64, {"rip": 0x7000, "rsp": address + 0x800})
    record = ExceptionRecord(0xC0000005, 0, 0x7000, 0, (), address + 0x4F0, 0)
    return SavedException(record, Context(Arch.X64, address, 0, registers, *[0] * 7), (Route.POINTERS,), address)


def stale(address: int, *names: str, guessed: int | None = None, is_complete: bool = False) -> bool:
    """Whether a CONTEXT at `address` is stale. The thread is in `names`; the frame `guessed` was found by a scan."""
    frames = [
        frame(0x1000 * index, sp, trust=Trust.SCAN if index == guessed else Trust.CFI)
        for index, (sp, _) in enumerate(zip(SPS, names, strict=False))
    ]
    memory = memory_of({})
    images = ImageMap(memory, ModuleMap([]))
    known = GivenNames(images, {0x1000 * index: name for index, name in enumerate(names)})
    target = Target(Arch.X64, memory, images, known, GivenWalk(Walk((), End.THREAD_START)))
    return is_stale(target, StackBounds(LIMIT, BASE), frames, at(address), is_complete=is_complete)


def test_a_context_below_the_stack_pointer_is_stale():
    assert stale(SPS[0] - 0x10, DISPATCHER, MAIN)
    assert not stale(SPS[0], DISPATCHER, MAIN)


def test_without_frames_or_outside_the_stack_nothing_is_known_of_it():
    assert not stale(SPS[0])
    assert not stale(LIMIT - 0x1000, WAITS, MAIN)
    assert not stale(BASE, WAITS, MAIN)


def test_a_context_at_the_stack_pointer_of_a_frame_is_in_that_frame():
    """The kernel builds it at rsp of the dispatcher."""
    assert not stale(SPS[1], WAITS, DISPATCHER, MAIN)
    assert stale(SPS[1] - 0x10, WAITS, DISPATCHER, MAIN)
    assert stale(SPS[2], WAITS, DISPATCHER, MAIN, MAIN)


def test_above_the_last_frame_it_is_stale_if_the_walk_reached_the_start_of_the_thread():
    assert stale(SPS[1], WAITS, MAIN, is_complete=True)
    assert not stale(SPS[1], WAITS, MAIN, is_complete=False)


@pytest.mark.parametrize(("guessed", "expected"), [(None, True), (0, True), (1, False), (2, False), (3, True)])
def test_a_guess_at_either_end_of_its_frame_leaves_it_open(guessed: int | None, expected: bool):
    assert stale(SPS[1] + 0x100, WAITS, MAIN, MAIN, MAIN, guessed=guessed) is expected


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        ("KiUserExceptionDispatch", False),
        ("RtlRaiseException", False),
        ("RtlDispatchException", False),
        ("app!__report_gsfailure", False),
        ("ucrtbase!_invoke_watson", False),
        ("kernelbase!RaiseFailFastException", False),
        ("RtlUnwindEx", True),
        ("app!main", True),
        ("app!abort", True),
    ],
)
def test_only_functions_that_dispatch_or_report_keep_a_context(holder: str, expected: bool):
    assert stale(SPS[1] + 0x100, WAITS, holder, MAIN) is expected


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        ("ntdll!", False),
        ("app!", True),
        ("ntdll!RtlVirtualUnwind??", False),
        ("ntdll!RtlVirtualUnwind", True),
        ("app!__report_gsfailure??", True),
    ],
    ids=["nameless", "nameless elsewhere", "doubtful", "certain", "doubtful elsewhere"],
)
def test_a_function_of_ntdll_without_a_name_of_its_own_may_be_the_dispatcher(holder: str, expected: bool):
    assert stale(SPS[1] + 0x100, WAITS, holder, MAIN) is expected


def test_a_function_that_calls_the_unhandled_filter_has_filled_in_a_context_itself():
    """A C runtime that is linked into the program, or a debugger's library: its name says nothing."""
    assert not stale(SPS[1] + 0x100, FILTER, "app!report", MAIN)
    assert not stale(SPS[2] + 0x100, WAITS, FILTER, "app!report", MAIN)
    assert stale(SPS[1] + 0x100, WAITS, FILTER, "app!report")
    assert stale(SPS[2] + 0x100, FILTER, "app!report", MAIN, MAIN)


def test_nothing_calls_what_the_innermost_frame_waits_in():
    assert stale(SPS[0] + 0x100, "app!waits", MAIN, FILTER)
