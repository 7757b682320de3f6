# SPDX-License-Identifier: Apache-2.0
"""Whether a handler has taken an exception, by the frames further in, its record and the thread's registrations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.taken_scenes import (
    CONTEXT,
    DISPATCHER,
    HANDLED,
    LOW,
    NTDLL,
    OF_BLOCK,
    RECORD,
    SEARCHER,
    SIZE,
    scene,
    thrown,
)
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route
from throwstack.dispatch.taken import (
    Answer,
    Registered,
    Taken,
    is_unnamed_ntdll,
    runs_handler,
    shows_dispatch,
    shows_start_of_dispatch,
    taken,
)
from throwstack.names.symbols import Name, SymbolKind, Symbols, SymbolTable

GUESSED = "the stack between was guessed"


def ask(arch: Arch, *names: str, registered: Registered | None = None, flags: int = 0, **scenery) -> Answer:
    target, frames = scene(arch, *names, **scenery)
    return taken(target, thrown(arch, flags=flags), frames, LOW, registered)


NOBODY = Registered((), (), is_known=True)


@pytest.mark.parametrize("flags", [0x2, 0x4, 0x6])
@pytest.mark.parametrize("arch", Arch)
def test_a_record_that_was_unwound_was_taken_if_a_function_unwinds(arch, flags):
    assert ask(arch, "waits", "RtlUnwind", SEARCHER, DISPATCHER, flags=flags).taken is Taken.YES
    assert ask(arch, "waits", SEARCHER, DISPATCHER, flags=flags).taken is Taken.UNKNOWN
    assert ask(arch, "waits", SEARCHER, DISPATCHER, flags=1).taken is Taken.NO


@pytest.mark.parametrize("unwinder", ["RtlUnwindEx", "RcConsolidateFrames"])
def test_a_function_that_unwinds_further_in_has_a_handler_that_took_it(unwinder):
    assert ask(Arch.X64, "waits", unwinder, SEARCHER, DISPATCHER).taken is Taken.YES
    assert ask(Arch.X64, "waits", SEARCHER, DISPATCHER, outside=(unwinder,)).taken is Taken.NO


def test_a_function_that_may_be_one_that_unwinds_leaves_it_open():
    answer = ask(Arch.X64, "waits", "RtlUnwindEx?", "calls", SEARCHER, DISPATCHER)
    assert answer.taken is Taken.UNKNOWN
    assert answer.why == f"the frame at {NTDLL.base + 0x2000:#x} may be in RtlUnwindEx"
    assert ask(Arch.X64, "waits", "RtlUnwindEx??", "calls", SEARCHER, DISPATCHER).taken is Taken.NO
    assert ask(Arch.X64, "waits", "calls", "RtlUnwindEx?").taken is Taken.UNKNOWN


@pytest.mark.parametrize("caller", [DISPATCHER, "RtlRaiseException"])
def test_what_the_dispatcher_calls_is_the_search_for_a_handler_whatever_export_is_near(caller):
    assert ask(Arch.X64, "waits", "RtlUnwindEx?", caller).taken is Taken.NO


def test_on_x64_a_guessed_frame_leaves_it_open():
    answer = ask(Arch.X64, "waits", SEARCHER, DISPATCHER, guessed=1)
    assert (answer.taken, answer.why) == (Taken.UNKNOWN, f"{GUESSED}, from {NTDLL.base + 0x2000:#x} on")


def test_on_x64_functions_of_ntdll_without_names_leave_it_open_where_they_may_unwind():
    """The innermost is a system call, and what the dispatcher calls (with RtlRaiseException: both) is known."""
    assert ask(Arch.X64, "waits", "", SEARCHER, DISPATCHER).why == "functions of ntdll have no names"
    assert ask(Arch.X64, "", "calls", "calls", "").taken is Taken.NO
    assert ask(Arch.X64, "waits", "calls", "", "calls").taken is Taken.UNKNOWN
    target, frames = scene(Arch.X64, "waits", "calls", "", "")
    assert taken(target, thrown(Arch.X64, route=Route.RAISE), frames, LOW, None).taken is Taken.NO
    target, frames = scene(Arch.X64, "waits", "", "calls", "calls")
    assert taken(target, thrown(Arch.X64, route=Route.RAISE), frames, LOW, None).taken is Taken.UNKNOWN


@pytest.mark.parametrize(("is_known", "expected"), [(True, Taken.YES), (False, Taken.UNKNOWN)])
def test_on_x86_a_handler_that_was_called_and_has_no_registration_has_returned_or_taken_it(is_known, expected):
    frames = ("waits", "ExecuteHandler2", SEARCHER, DISPATCHER)
    answer = ask(Arch.X86, *frames, registered=Registered((), (OF_BLOCK,), is_known=is_known))
    assert answer.taken is expected
    if not is_known:
        assert answer.why == "the thread's exception registrations are not known, or not to their end"


@pytest.mark.parametrize("chain", [(), (CONTEXT + 0x500,), (LOW - 8, CONTEXT)])
def test_on_x86_a_block_that_runs_on_top_of_the_dispatcher_has_a_registration(chain):
    """The chain's head was overwritten with the registration that RtlUnwind would have made its head."""
    answer = ask(
        Arch.X86, "waits", "ExecuteHandler2", SEARCHER, DISPATCHER, registered=Registered((), chain, is_known=True)
    )
    assert (answer.taken, answer.why) == (
        Taken.UNKNOWN,
        "the block that would handle it has no exception registration",
    )


@pytest.mark.parametrize(
    ("low", "ip", "expected"),
    [
        (LOW, 0x401000, Taken.NO),
        (LOW + 0x200, 0x401000, Taken.NO),
        (LOW + 0x204, 0x401000, Taken.YES),
        (LOW, 0x401001, Taken.YES),
    ],
    ids=["above", "right there", "further in", "of another exception"],
)
def test_on_x86_the_registration_of_the_exception_shows_that_its_handler_runs(low, ip, expected):
    target, frames = scene(Arch.X86, "waits", "ExecuteHandler2", SEARCHER, DISPATCHER)
    registered = Registered((thrown(Arch.X86, ip=ip),), (OF_BLOCK,), is_known=True)
    assert taken(target, thrown(Arch.X86), frames, low, registered).taken is expected


def test_on_x86_vectored_handlers_have_no_registration_and_have_taken_nothing():
    assert ask(Arch.X86, "waits", "RtlpCallVectoredHandlers", SEARCHER, DISPATCHER, registered=NOBODY).taken is Taken.NO


ASKED = CONTEXT + 0x500
PASSED = (RECORD, ASKED, CONTEXT)


@pytest.mark.parametrize(
    ("arguments", "at", "expected"),
    [
        (PASSED, LOW + 0x300, Taken.YES),
        (PASSED, LOW, Taken.YES),
        (PASSED, CONTEXT - 12, Taken.YES),
        ((RECORD, RECORD, ASKED, CONTEXT), LOW + 0x300, Taken.YES),
        ((RECORD, 0xE0001234, CONTEXT), LOW + 0x300, Taken.UNKNOWN),
        ((RECORD, CONTEXT - 0x100, CONTEXT), LOW + 0x300, Taken.UNKNOWN),
        ((RECORD, CONTEXT, CONTEXT), LOW + 0x300, Taken.UNKNOWN),
        ((RECORD, ASKED + 1, CONTEXT), LOW + 0x300, Taken.UNKNOWN),
        ((RECORD, LOW + SIZE - 8, CONTEXT), LOW + 0x300, Taken.YES),
        ((RECORD, LOW + SIZE - 4, CONTEXT), LOW + 0x300, Taken.UNKNOWN),
        (PASSED, LOW + 0x302, Taken.UNKNOWN),
        ((RECORD, CONTEXT), LOW + 0x300, Taken.UNKNOWN),
        (PASSED, CONTEXT - 8, Taken.UNKNOWN),
        ((), LOW, Taken.UNKNOWN),
    ],
    ids=[
        *(
            "on the stack",
            "lowest",
            "below the CONTEXT",
            "the second",
            "a code",
            "further in",
            "the CONTEXT",
            "of no frame",
        ),
        *("at the end of memory", "no whole registration"),
        *("odd", "side by side", "not below", "nowhere"),
    ],
)
def test_on_x86_the_arguments_of_a_handler_count_where_its_frame_may_be_missing(arguments, at, expected):
    scenery = {"guessed": 1, "arguments": arguments, "at": at, "registered": NOBODY}
    answer = ask(Arch.X86, "waits", "calls", SEARCHER, DISPATCHER, **scenery)
    assert answer.taken is expected
    if expected is Taken.UNKNOWN:
        assert answer.why == f"{GUESSED}, and no registration decides it"


@pytest.mark.parametrize(
    ("arch", "name", "arguments", "expected"),
    [
        (Arch.X64, "RtlpExecuteHandlerForException", (), True),
        (Arch.X64, "other", PASSED, False),
        (Arch.X86, "ExecuteHandler2", (), True),
        (Arch.X86, "ExecuteHandler2?", (), False),
        (Arch.X86, "", PASSED, True),
        (Arch.X86, "", (RECORD, 0x1234, CONTEXT + 4), False),
        (Arch.X86, "", (RECORD + 4, 0x1234, CONTEXT), False),
        (Arch.X86, "", (RECORD, CONTEXT), False),
    ],
)
def test_a_frame_that_calls_a_handler_is_known_by_its_name_or_its_arguments(arch, name, arguments, expected):
    """On x86 they are two words above the frame: its saved ebp and its return address are below."""
    target, (frame,) = scene(arch, name, arguments=arguments, at=LOW + 0x48)
    assert runs_handler(target, frame, thrown(arch)) is expected


def test_a_frame_at_an_address_that_cannot_be_read_calls_no_handler():
    target, (frame,) = scene(Arch.X86, "")
    assert not runs_handler(target, replace(frame, child_sp=0xFFFFFFFC), thrown(Arch.X86))


@pytest.mark.parametrize("name", [DISPATCHER, "RtlRaiseException", SEARCHER, "other"])
def test_a_dispatch_starts_in_the_kernel_s_dispatcher_or_with_a_raise(name):
    target, frames = scene(Arch.X64, "waits", name)
    assert shows_start_of_dispatch(target, frames) is (name in {DISPATCHER, "RtlRaiseException"})


@pytest.mark.parametrize(("name", "shows"), [(SEARCHER, True), (DISPATCHER, True), ("", True), ("RtlUnwindEx", False)])
def test_a_frame_of_a_dispatch_or_of_an_ntdll_without_names_shows_one(name, shows):
    """RtlUnwindEx shows none: longjmp calls it as well."""
    target, frames = scene(Arch.X64, "waits", name)
    assert shows_dispatch(target, frames) is shows


@pytest.mark.parametrize(
    ("name", "is_unnamed"),
    [
        (Name(NTDLL.base, "ntdll"), True),
        (Name(NTDLL.base, "NTDLL"), True),
        (Name(NTDLL.base, "ntdll", "NtClose"), False),
        (Name(NTDLL.base, "kernel32"), False),
        (Name(0x1000, "ntdll"), False),
    ],
    ids=["no name", "in capitals", "a name", "another module", "an unloaded one"],
)
def test_an_ntdll_of_which_no_name_could_be_read_is_known_by_its_image(name, is_unnamed):
    target, _ = scene(Arch.X64, "")
    assert is_unnamed_ntdll(target, name) is is_unnamed
    named = Symbols(target.images, lambda _: SymbolTable(SymbolKind.ISF, [(0x1000, "NtClose")]))
    assert not is_unnamed_ntdll(replace(target, symbols=named), name)


@pytest.mark.parametrize(
    ("names", "scenery"),
    [((), {}), (("waits", "", DISPATCHER), {}), (("waits", "calls", DISPATCHER), {"guessed": 1})],
    ids=["no frames", "no names", "a guess"],
)
def test_a_flag_of_unwinding_is_believed_where_nothing_speaks_against_it(names, scenery):
    assert ask(Arch.X64, *names, flags=2, **scenery).taken is Taken.YES


@pytest.mark.parametrize(("is_known", "chain"), [(True, (OF_BLOCK,)), (False, ()), (False, (LOW + 0x400,))])
def test_on_x86_an_except_block_on_top_of_a_handler_explains_the_flag(is_known, chain):
    """Delphi's except blocks run there, without a function that unwinds."""
    registered = Registered((), chain, is_known=is_known)
    assert ask(Arch.X86, *HANDLED, flags=2, registered=registered).taken is Taken.YES
    assert ask(Arch.X86, "waits", SEARCHER, DISPATCHER, flags=2, registered=registered).taken is Taken.UNKNOWN


def test_on_x86_a_damaged_chain_explains_no_flag_and_on_x64_no_handler_does():
    damaged = Registered((), (LOW + 0x400,), is_known=True)
    assert ask(Arch.X86, *HANDLED, flags=2, registered=damaged).taken is Taken.UNKNOWN
    names = ("waits", "RtlpExecuteHandlerForException", SEARCHER, DISPATCHER)
    assert ask(Arch.X64, *names, flags=2).taken is Taken.UNKNOWN


@pytest.mark.parametrize(("below", "expected"), [(1 << 20, Taken.YES), ((1 << 20) + 4, Taken.UNKNOWN)])
def test_on_x86_arguments_are_searched_in_the_mebibyte_below_the_context(below, expected):
    high = CONTEXT + (4 << 20)
    target, frames = scene(Arch.X86, "waits", "calls", SEARCHER, DISPATCHER, guessed=1)
    words = b"".join(word.to_bytes(4, "little") for word in (RECORD, high + 0x100, high))
    start = high - (2 << 20)
    data = bytes(high - below - start) + words + bytes(below - len(words) + 0x1000)
    item = thrown(Arch.X86)
    item = replace(item, context=replace(item.context, address=high))
    target = replace(target, memory=memory_of({start: data}))
    assert taken(target, item, frames, LOW, NOBODY).taken is expected


def test_the_frame_that_begins_with_the_context_is_not_below_it():
    target, frames = scene(Arch.X64, "waits", SEARCHER, outside=("RtlUnwindEx",))
    registers = Registers(frames[2].ip, tuple(CONTEXT if n == 4 else None for n in range(16)))
    frames[2] = replace(frames[2], registers=registers, child_sp=CONTEXT)
    assert taken(target, thrown(Arch.X64), frames, LOW, None).taken is Taken.NO
