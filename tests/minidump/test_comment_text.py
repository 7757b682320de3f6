# SPDX-License-Identifier: Apache-2.0
"""The comment: what the reader of a minidump has to know."""

from __future__ import annotations

from tests.support.minidump_parts import process
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.sides import Side
from throwstack.dispatch.saved_exception import Route
from throwstack.minidump.comment_text import comment_text, unknown_registers
from throwstack.minidump.dumped import DumpedException, DumpedThread, MadeContext, Span
from throwstack.report.crash_report import CrashReport, ExceptionReport, ProcessSummary
from throwstack.report.values import Hexadecimal
from throwstack.report.verdict import CrashVerdict, VerdictCode
from throwstack.stuck.signature import Signature

FAULT = ExceptionReport(
    Hexadecimal(0xC0000005),
    Hexadecimal(0x401000),
    title="ACCESS_VIOLATION reading 0x18",
    thrown_at="shop!Pay+0x5",
    routes=(Route.FILTER_ARGUMENT,),
)


def crash(tid: int, **more: object) -> CrashReport:
    verdict = CrashVerdict(VerdictCode.CRASHED_WAITING_FOR_WER, "crashed and waiting for WER")
    return CrashReport(ProcessSummary(8, "shop.exe"), tid, Side.NATIVE, "x64", verdict, **more)


def test_exceptions_doubts_and_other_threads():
    record = ExceptionRecord(0xC0000005, 0, 0x401000, 0, (), 0, 0)
    context = MadeContext(b"", ("debug registers",), Span(0x5000, 0x5340))
    given = process(exception=DumpedException(4, record, context))
    first = crash(
        4,
        exceptions=(FAULT,),
        signature=Signature("shop!Pay", "3f2a9c01"),
        doubts=("a doubt",),
        notes=("a note",),
    )
    text = comment_text("throwstack 9", "MEMORY.DMP, an image", "shop.exe", given, [first, crash(12)])
    assert text.splitlines() == [
        "made by throwstack 9 from MEMORY.DMP, an image",
        "process shop.exe (PID 4660)",
        "thread 4 crashed and waiting for WER, signature shop!Pay (3f2a9c01)",
        "  ACCESS_VIOLATION reading 0x18 at shop!Pay+0x5 (found by UnhandledExceptionFilter argument)",
        "  in doubt: a doubt",
        "  note: a note",
        "another stuck thread: thread 12 crashed and waiting for WER",
        "registers at the throw that are not known: debug registers",
        "extended state (AVX) at the throw is in memory: XSAVE area at 0x5000",
    ]


def test_threads_that_lack_the_same_registers_share_a_line():
    lacking = MadeContext(b"", ("rax", "rcx"))
    threads = (
        DumpedThread(4, context=lacking),
        DumpedThread(8, problem="the thread was running"),
        DumpedThread(12, context=lacking),
        DumpedThread(16, context=MadeContext(b"")),
    )
    assert list(unknown_registers(process(threads=threads))) == [
        "no registers of threads 8: the thread was running",
        "not known, zero or left out: rax, rcx of threads 4, 12",
    ]


def test_a_thousand_threads_do_not_make_a_line_endless():
    threads = tuple(DumpedThread(4 * number, problem="x") for number in range(1, 1001))
    (line,) = unknown_registers(process(threads=threads))
    assert line.endswith("124, 128 and 968 more: x")


def test_a_minidump_without_an_exception_says_so():
    assert "no exception stream" in comment_text("throwstack", "a.dmp", "shop.exe", process(), [])
