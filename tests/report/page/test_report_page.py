# SPDX-License-Identifier: Apache-2.0
"""The page of a report as HTML: what is on it. tests/browser has what it does."""

from __future__ import annotations

import html
import re

import pytest

from tests.support.made_reports import ATTACKS, crash, dump, hostile, stack, two_of_one_pid
from throwstack.core.sides import Side
from throwstack.report.crash_report import CrashReport, ProcessSummary
from throwstack.report.dump_report import (
    Deadlock,
    FileReport,
    ReportWarning,
    ThreadOfDeadlock,
    UnexaminedProcess,
    WarningCode,
)
from throwstack.report.page import report_page
from throwstack.report.page.page_limits import MOST_CRASHES
from throwstack.report.page.report_page import page_of
from throwstack.report.process_report import ProcessReport
from throwstack.report.thread_groups import ThreadGroup
from throwstack.report.verdict import CrashVerdict, VerdictCode


def text_of(page: str) -> str:
    """Return the text of a page, without elements and with single spaces."""
    body = page[page.index("<main>") : page.index("</main>")]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_a_crash_is_on_the_page_with_all_its_parts():
    said = text_of(page_of(dump(crash(doubts=("may be stale",), notes=("a note",))), version="1.2"))
    for part in (
        "1 thread stuck , of 345 threads in 12 processes examined.",
        "app.exe : crashed and waiting in the unhandled exception filter",
        "process 2564 = 0xa04, thread 2792 = 0xae8",
        "C++ app::Error",
        "app!f2+0x10 signature",
        "app!f1+0x10 thrown here",
        "In doubt: may be stale",
        "a note",
        "KERNELBASE!UnhandledExceptionFilter",
        "The stack that threw 4 frames",
        ".process /r /p ffffe00010000cc0; .thread ffffe00010001740; .cxr 00000000000ff800; k",
        "throwstack minidump MEMORY.DMP --pid 2564",
        "Picture of the stack",
    ):
        assert part in said


def test_nobody_stuck_says_how_much_was_looked_at_and_what_may_be_hidden():
    assert "No stuck thread. 345 threads in 12 processes examined. Nothing says that one may be hidden." in text_of(
        page_of(dump())
    )
    hidden = dump(
        warnings=(ReportWarning(WarningCode.STACK, "the stack is paged out", 8, 12),),
        unexamined=(UnexaminedProcess("its PEB is not readable", 16, "lost.exe"),),
        deadlocks=(Deadlock((ThreadOfDeadlock(4, 8, "app.exe", "a lock"),), 2),),
    )
    said = text_of(page_of(hidden))
    assert "Crashes may be hidden: 2 warnings" in said
    assert "stack, process 8, thread 12: the stack is paged out" in said
    assert "Not examined: lost.exe 16 = 0x10: its PEB is not readable" in said
    assert "and 2 other threads for one of them" in said


def test_a_dump_that_is_cut_off_may_hide_crashes_without_a_warning():
    said = text_of(page_of(dump(file=FileReport("MEMORY.DMP", 1, "crash-dump", "", 100, 40))))
    assert "The dump is cut off : crashes may be hidden in what is missing." in said
    assert "Nothing says" not in said


def test_a_process_that_is_not_there_hides_nothing():
    said = text_of(page_of(dump(warnings=(ReportWarning(WarningCode.NOT_FOUND, "there is no process", 4242),))))
    assert "Nothing says that one may be hidden." in said
    assert "Not found not-found, process 4242: there is no process" in said
    assert "Crashes may be hidden" not in said


def test_a_crash_has_the_facts_of_its_own_process_where_two_have_the_same_pid():
    """A rootkit, or a link of the process list that was changed, makes a PID of two processes the same."""
    assert re.findall(r"[12]\.exe , user (ONE|TWO)", text_of(page_of(two_of_one_pid()))) == ["ONE", "TWO"]


def handled() -> CrashReport:
    return crash(1, 1, verdict=CrashVerdict(VerdictCode.HANDLED, VerdictCode.HANDLED.value))


def test_the_worst_crash_is_first_and_one_that_a_handler_has_taken_is_not_counted():
    said = text_of(page_of(dump(handled(), crash())))
    assert "1 thread stuck" in said
    assert "1 thread with an exception that a handler has taken." in said
    assert said.index("app.exe : crashed") < said.index("app.exe : handled")


def test_of_very_many_crashes_all_are_named_and_the_first_are_whole():
    page = page_of(dump(*(crash(tid=number) for number in range(MOST_CRASHES + 20))))
    assert page.count('<section class="crash"') == MOST_CRASHES
    assert page.count('<a href="#c') >= MOST_CRASHES
    assert "The first 100 have all their parts on this page" in page


def test_what_does_not_fit_is_left_out_and_that_is_said(monkeypatch):
    stacks = ThreadGroup((1,), stack(20).frames), ThreadGroup((2,), stack(20).frames)
    report = dump(crash(1), crash(2), crash(3), processes=(ProcessReport(1, "app.exe", other_threads=stacks),))
    whole = page_of(report)
    assert (whole.count('class="crash"'), whole.count('class="group"')) == (3, 2)
    monkeypatch.setattr(report_page, "MOST_LETTERS", 9_000)
    cut = page_of(report)
    assert (cut.count('class="crash"'), cut.count('class="group"')) == (2, 0)
    assert "The first 2 have all their parts on this page" in cut
    assert "2 more stacks in the report as JSON" in cut


def test_a_crash_of_which_nothing_is_known_is_a_page():
    nothing = CrashReport(ProcessSummary(4, ""), 8, Side.X86, "x86", CrashVerdict(VerdictCode.UNKNOWN, ""))
    assert "stuck process 4 = 0x4, thread 8 = 0x8, x86" in text_of(page_of(dump(nothing)))


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_names_cannot_break_out(attack: str):
    """Whatever the names are, the page has the elements that it has with a name of one letter."""
    elements = re.compile(r"</?(\w+)")
    page = page_of(hostile(attack))
    assert set(elements.findall(page)) <= set(elements.findall(page_of(hostile("a" * 400)))) | {"br"}
    assert re.findall(r"\son\w+=|\sstyle=|javascript:[^<]*\"", re.sub(r">[^<]*<", "><", page)) == []
    assert page.isprintable() or not set(page) & set("\u202e\u2066\u200b\x1b\x00\r")
    page.encode("utf-8")


def test_a_name_without_an_end_does_not_make_a_page_without_an_end():
    assert len(page_of(hostile("N" * 1_000_000))) < 2_000_000
