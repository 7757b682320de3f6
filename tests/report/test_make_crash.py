# SPDX-License-Identifier: Apache-2.0
"""What the report on a stuck thread says of its exceptions: on published stacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stacks.outcomes import LaidOut
from tests.stacks.published import FOLDER, read_stack
from throwstack.report.crash_report import CrashReport
from throwstack.report.verdict import VerdictCode

FAULT_IN_VECTORED_HANDLER = """
!code 0xC0000005 0 0x8
!throw app::Error "{message}"
ntdll!NtWaitForMultipleObjects
KERNELBASE!UnhandledExceptionFilter
ntdll!RtlUserThreadStart$filt$0
ntdll!_C_specific_handler
ntdll!RtlpExecuteHandlerForException
ntdll!RtlDispatchException
ntdll!KiUserExceptionDispatch
app!Report::Write
app!OnException
ntdll!RtlpCallVectoredHandlers
ntdll!RtlDispatchException
ntdll!RtlRaiseException
KERNELBASE!RaiseException
VCRUNTIME140!_CxxThrowException
app!Average
app!main
KERNEL32!BaseThreadInitThunk
ntdll!RtlUserThreadStart
"""

CODE_OF_A_FAULT_RAISED_BY_A_CALL = """
!code 0xC0000005 0 0x8
ntdll!NtWaitForMultipleObjects
KERNELBASE!UnhandledExceptionFilter
ntdll!RtlUserThreadStart$filt$0
ntdll!_C_specific_handler
ntdll!RtlpExecuteHandlerForException
ntdll!RtlDispatchException
ntdll!RtlRaiseException
KERNELBASE!RaiseException
app!core::panicking::panic
app!Check
app!main
KERNEL32!BaseThreadInitThunk
ntdll!RtlUserThreadStart
"""


def crash(text: str, folder: Path) -> CrashReport:
    path = folder / "stack.txt"
    path.write_text(text, "utf-8")
    return crash_on(path)


def crash_on(path: Path, *, handled: bool = False) -> CrashReport:
    found = LaidOut(read_stack(path)).outcome("all names", handled=handled).crash
    assert found is not None
    return found


@pytest.mark.parametrize(("message", "shown"), [("no such table", '"no such table")'), ("x" * 250, f'"{"x" * 184}…)')])
def test_a_note_names_an_earlier_exception_with_type_and_message_cut_to_a_length(
    message: str, shown: str, tmp_path: Path
):
    found = crash(FAULT_IN_VECTORED_HANDLER.format(message=message), tmp_path)
    (note,) = found.notes
    assert note.startswith(f"raised while the original exception 0xe06d7363 (C++ app::Error {shown} at 0x")
    assert found.exceptions[1].title == f'C++ app::Error "{message}"'


def test_exception_with_the_code_of_a_fault_that_a_reporter_raised_was_thrown_at_its_caller(tmp_path: Path):
    """No instruction faulted: the stack that threw begins in RaiseException."""
    found = crash(CODE_OF_A_FAULT_RAISED_BY_A_CALL, tmp_path)
    assert found.thrown_at.split("+")[0] == "app!Check"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("crt-fault-in-catch-x86", 'further out on this stack 0xe06d7363 (C++ std::runtime_error "retry") was raised'),
        ("reporter-catches-in-filter-x86", 'on this stack 0xe06d7363 (C++ std::runtime_error "no server") was raised'),
    ],
)
def test_an_exception_that_a_handler_has_taken_is_in_the_notes_by_its_type_and_message(name: str, words: str):
    """It is no reason to doubt the row, which is about another exception, further in or further out."""
    found = crash_on(FOLDER / f"{name}.txt")
    (note,) = found.notes
    assert note.startswith(words)
    assert "; a handler seems to have taken it (context 0x" in note
    assert found.doubts == ()


@pytest.mark.parametrize("name", ["decoy-catch-body-waits-x86", "decoy-finally-waits-x64"])
def test_a_row_of_a_taken_exception_has_no_note_that_the_same_exception_was_taken(name: str):
    found = crash_on(FOLDER / f"{name}.txt", handled=True)
    assert found.verdict.code is VerdictCode.HANDLED
    assert (found.notes, found.doubts) == ((), ())
