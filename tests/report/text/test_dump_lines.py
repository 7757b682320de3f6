# SPDX-License-Identifier: Apache-2.0
"""What is said once a dump: how much was looked at, what may be hidden, which symbols would help."""

from __future__ import annotations

from dataclasses import replace

from throwstack.report.dump_report import (
    DumpReport,
    Examined,
    FileReport,
    MachineReport,
    ReportWarning,
    UnexaminedProcess,
    WantedFile,
    WarningCode,
)
from throwstack.report.text.report_text import lines_of

FILE = FileReport("MEMORY.DMP", 3 << 20, "raw", "raw image")
REPORT = DumpReport("1.1", FILE, MachineReport("Windows 10", "x64"), Examined(1, 12))


def text(report: DumpReport) -> str:
    return "\n".join(lines_of(report))


def test_nothing_is_said_of_what_is_not_known():
    assert text(REPORT).splitlines() == [
        "MEMORY.DMP    Windows 10 x64",
        "              raw image, 3.0 MiB",
        "              when it was taken is not known",
        "              1 process and 12 threads examined: none is stuck on an unhandled exception",
    ]


def test_reasons_why_a_crash_may_be_hidden_are_counted_first_and_told_last():
    warnings = (ReportWarning(WarningCode.STACK, "stack is not readable", pid=8, tid=12),)
    unexamined = (UnexaminedProcess("it has no PEB", 16, "app.exe"), UnexaminedProcess("it is not readable"))
    said = text(replace(REPORT, warnings=warnings, unexamined=unexamined))
    assert "an unhandled exception; others may be hidden for 3 reasons (at the end)" in said.replace(
        "\n" + " " * 14, " "
    )
    assert said.splitlines()[-4:] == [
        "Why crashes may be hidden",
        "  app.exe (16) was not examined: it has no PEB",
        "  a process was not examined: it is not readable",
        "  process 8, thread 12: stack is not readable",
    ]


def test_a_process_that_is_not_there_hides_nothing():
    said = text(replace(REPORT, warnings=(ReportWarning(WarningCode.NOT_FOUND, "there is no process", pid=4242),)))
    assert "hidden" not in said
    assert said.endswith("Not found\n  process 4242: there is no process")


def test_thousands_of_reasons_are_cut():
    warnings = tuple(ReportWarning(WarningCode.STACK, "stack is not readable", tid=4 * tid) for tid in range(5000))
    lines = text(replace(REPORT, warnings=warnings)).splitlines()
    assert len(lines) < 40
    assert lines[-1] == "  and 4,980 more (--json has all)"


def test_wanted_symbols_and_how_to_bring_them():
    wanted = (
        WantedFile("app.pdb,0123ABCD1,1", "app", "function names (now from exports)"),
        WantedFile("core.pdb,4567CDEF1,1", "core", "public symbols only", is_at_hand=True),
    )
    said = text(replace(REPORT, symbols_wanted=wanted))
    assert "  app              app.pdb,0123ABCD1,1\n                   function names (now from exports)\n" in said
    assert "                   at hand, but public symbols only\n" in said
    assert "--symbol-path 'srv*CACHE*https://msdl.microsoft.com/download/symbols'" in said
