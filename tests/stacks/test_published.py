# SPDX-License-Identifier: Apache-2.0
"""Each published stack comes out as its file says, with all names and with exports only."""

from __future__ import annotations

import re
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.stacks.differences import differences
from tests.stacks.outcomes import LaidOut, Outcome
from tests.stacks.published import FOLDER, MODES, PublishedStack, read_stack, stack_files
from throwstack.core.registers import Arch
from throwstack.names.demangle import undecorate
from throwstack.names.frame_names import name_of
from throwstack.report.verdict import VerdictCode

FILES = stack_files()


@cache
def _laid(path: Path) -> tuple[PublishedStack, LaidOut]:
    stack = read_stack(path)
    return stack, LaidOut(stack)


def _cases(*, handled: bool = False) -> list[object]:
    cases: list[object] = []
    for path in FILES:
        expected = read_stack(path).expected
        if handled and not any(one.handled for one in expected.values()):
            continue
        for mode in MODES:
            reason = expected[mode].xfail
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            cases.append(pytest.param(path, mode, marks=marks, id=f"{path.stem}, {mode}"))
    return cases


def test_documents_name_every_family() -> None:
    text = (FOLDER.parents[1] / "docs" / "exceptions.md").read_text("utf-8").partition("| Family |")[2]
    named = {
        family
        for row in text.splitlines()
        for family in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    assert named == {path.stem.partition("-")[0] for path in FILES}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("!no-row\n00 ntdll!NtWaitForSingleObject", "pasted.txt:2: one module!function, without number and offset"),
        ("!no-row\napp!main+0x10", "pasted.txt:2: one module!function, without number and offset"),
        ("!no-row\napp!main+0x10 [main.c @ 7]", "pasted.txt:2: one module!function, without number and offset"),
        ("!row\n!verdict CRASHED_WAITING\napp!main", "pasted.txt:2: no such verdict; there are CRASHED_IN_SHUTDOWN, "),
        ("!row\n!thrown_at app!main", "pasted.txt:2: !thrown_at app!main"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "pasted.txt"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=f"^{re.escape(why)}"):
        read_stack(path)


@pytest.mark.parametrize(("text", "mode"), [("app!main", "all names"), ("!all-names\n!row\napp!main", "exports only")])
def test_nothing_is_as_written_where_nothing_is_written(tmp_path: Path, text: str, mode: str) -> None:
    path = tmp_path / "pasted.txt"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=f"^pasted: neither !row nor !no-row for {mode}"):
        differences(read_stack(path), mode, Outcome(None, ()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_says_what_must_come_out(path: Path) -> None:
    for expected in read_stack(path).expected.values():
        assert expected.row is not None
        assert bool(expected.verdict) == bool(expected.signature) == expected.row


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stack_is_laid_out_as_published(path: Path) -> None:
    stack, laid = _laid(path)
    target = laid.target("all names")
    assert laid.thread.registers is not None
    walk = target.walk(laid.thread.registers, laid.bounds)
    names = [name_of(target.symbols, frame) for frame in walk.frames]
    shown = [(frame.module, undecorate(frame.function)) for frame in stack.live if frame.function]
    assert [(name.module, name.symbol) for name in names if name.symbol] == shown


@pytest.mark.parametrize(("path", "mode"), _cases())
def test_comes_out_as_written(path: Path, mode: str) -> None:
    stack, laid = _laid(path)
    assert not differences(stack, mode, laid.outcome(mode))


@pytest.mark.parametrize(("path", "mode"), _cases(handled=True))
def test_taken_exceptions_are_listed_on_request(path: Path, mode: str) -> None:
    crash = _laid(path)[1].outcome(mode, handled=True).crash
    assert crash is not None
    assert crash.verdict.code is VerdictCode.HANDLED


IN_DISPATCH = {"VECTORED_HANDLER", "EXCEPTION_FILTER", "DISPATCHER_LOCK", "SECOND_CHANCE", "IN_DISPATCH"}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem)
        for path in FILES
        if read_stack(path).expected["all names"].verdict in IN_DISPATCH
    ],
)
def test_dispatch_whose_context_is_damaged_is_a_doubt(path: Path) -> None:
    """The CONTEXT has no ip any more; no function on the stack says that the exception went unhandled."""
    laid = _laid(path)[1]
    crash = laid.outcome("all names").crash
    assert crash is not None
    context = crash.exceptions[0].context_address
    assert context is not None
    outcome = laid.damaged(context + (0xF8 if laid.arch is Arch.X64 else 0xB8)).outcome("all names")
    assert outcome.crash is not None or outcome.doubts


def test_box_whose_caller_is_lost_is_a_row_with_a_doubt_or_a_warning() -> None:
    """The file has no text of the box. The return address into `_CrtDbgReport` is overwritten, then all outside it."""
    laid = _laid(FOLDER / "crt-mfc-assertion-debug.txt")[1]
    assert laid.thread.registers is not None
    target = laid.target("exports only")
    frames = target.walk(laid.thread.registers, laid.bounds).frames
    names = [name_of(target.symbols, frame).symbol for frame in frames]
    slots = [frame.return_slot for frame in frames[names.index("_CrtDbgReport") - 1 :]]
    assert slots[0] is not None
    crash = laid.damaged(slots[0], 0xB92109F).outcome("exports only").crash
    assert crash is not None
    assert any("is a guess from" in doubt for doubt in crash.doubts)
    for slot in filter(None, slots):
        laid = laid.damaged(slot, 0xB92109F)
    outcome = laid.outcome("exports only")
    assert outcome.crash is None
    assert len(outcome.doubts) == 1


@pytest.mark.parametrize("value", [0, 0xB92109F])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name",
    [
        *("crt-purecall-handler-waits-x86", "reporter-breakpad-purecall", "reporter-breakpad-invalid-parameter"),
        *("wer-silent-exit-monitor", "mongo-fassert"),
    ],
)
def test_no_overwritten_return_address_hides_a_thread_that_only_one_word_shows(name: str, mode: str, value: int):
    laid = _laid(FOLDER / f"{name}.txt")[1]
    assert laid.thread.registers is not None
    walk = laid.target(mode).walk(laid.thread.registers, laid.bounds)
    slots = [frame.return_slot for frame in walk.frames if frame.return_slot]
    assert slots
    for slot in slots:
        outcome = laid.damaged(slot, value).outcome(mode)
        assert outcome.crash is not None or outcome.doubts


@pytest.mark.parametrize("mode", MODES)
def test_row_of_another_exception_than_that_of_a_damaged_context_says_so(mode: str):
    """A catch block faults. What it has caught is further out, and is all that is left."""
    laid = _laid(FOLDER / "crt-fault-in-catch-x86.txt")[1]
    crash = laid.outcome(mode).crash
    assert crash is not None
    context = crash.exceptions[0].context_address
    assert context is not None
    damaged = laid.damaged(context + 0xB8).outcome(mode).crash
    assert damaged is not None
    assert damaged.doubts[0].endswith("is in ntdll!KiUserExceptionDispatcher, without an exception there")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["reporter-matlab-handler-x86", "reporter-engine-except-filter-x86"])
def test_damaged_registration_of_the_dispatcher_does_not_say_that_a_handler_took_the_exception(name: str, mode: str):
    laid = _laid(FOLDER / f"{name}.txt")[1]
    head = laid.thread.exception_list
    assert head is not None
    no_handler = laid.damaged(head + 4)
    no_chain, unlinked = copy(laid), copy(laid)
    no_chain.thread = replace(laid.thread, exception_list=0xFFFFFFFF)
    # The registration is {next, handler, the registration whose handler runs}: RtlUnwind makes the last the head.
    unlinked.thread = replace(laid.thread, exception_list=laid.memory.u32(head + 8))
    for outcome in (no_handler.outcome(mode), no_chain.outcome(mode), unlinked.outcome(mode)):
        assert outcome.crash is not None
        assert "a handler may have taken it" in outcome.crash.doubts[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name",
    ["wer-second-chance-x86", "wer-second-chance-x64", "reporter-matlab-handler-x86", "java-j9-vectored-handler"],
)
def test_flag_of_unwinding_is_doubted_where_nothing_unwinds(name: str, mode: str):
    laid = _laid(FOLDER / f"{name}.txt")[1]
    crash = laid.outcome(mode).crash
    assert crash is not None
    code, flags = crash.exceptions[0].record_address, laid.arch.pointer_size - 4
    word = int(crash.exceptions[0].code) if flags else 0
    damaged = laid.damaged(code + 4 - flags, word | 2 << 8 * flags).outcome(mode).crash
    assert damaged is not None
    assert "but no function unwinds it" in damaged.doubts[0]


@pytest.mark.parametrize("mode", MODES)
def test_report_of_the_programs_own_is_no_row_where_a_frame_further_out_is_a_guess(mode: str):
    laid = _laid(FOLDER / "wer-decoy-submits-report.txt")[1]
    assert laid.thread.registers is not None
    target = laid.target(mode)
    frames = target.walk(laid.thread.registers, laid.bounds).frames
    names = [name_of(target.symbols, frame).symbol for frame in frames]
    outer = frames[names.index("WerReportSubmit") + 1 :]
    outcomes = [laid.damaged(frame.return_slot).outcome(mode) for frame in outer if frame.return_slot]
    assert outcomes
    assert [outcome.crash for outcome in outcomes] == [None] * len(outcomes)
    assert any(outcome.doubts for outcome in outcomes)
