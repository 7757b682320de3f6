# SPDX-License-Identifier: Apache-2.0
"""The report on a whole dump as one self-contained HTML page: `page_of`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from throwstack.core.sides import Side
from throwstack.report.crash_report import CrashReport
from throwstack.report.dump_report import DumpReport
from throwstack.report.frame_report import FrameReport
from throwstack.report.page.crash_section import crash_section
from throwstack.report.page.page_templates import render
from throwstack.report.page.page_values import digits_of
from throwstack.report.page.stack_table import StackTable, stack_table
from throwstack.report.page.trust_words import explained
from throwstack.report.process_report import ProcessReport
from throwstack.report.thread_groups import ThreadGroup

MOST_CRASHES = 100
"""The most stuck threads that have all their parts on the page; the table at its top has all of them."""
_OPEN_CRASHES = 5
_MOST_GROUPS = 200


@dataclass(frozen=True, slots=True)
class GroupPart:
    """Threads with equal stacks on a page."""

    group: ThreadGroup
    stack: StackTable | None

    @property
    def top(self) -> str:
        """Return the call site at which the threads are in user code, or in the kernel if no other is known."""
        names = [frame.name for frame in self.group.frames]
        return next((name for name in names if not name.startswith("nt!")), next(iter(names), ""))


@dataclass(frozen=True, slots=True)
class ProcessPart:
    """A process on a page, with its other threads. `digits` are those of its addresses, `kernel_digits` of others."""

    key: str
    process: ProcessReport
    digits: int
    kernel_digits: int
    groups: tuple[GroupPart, ...]

    @property
    def thread_count(self) -> int:
        """Return the number of threads that are not stuck."""
        return sum(len(group.tids) for group in self.process.other_threads)


def page_of(report: DumpReport, *, version: str = "") -> str:
    """Return the report as a page of HTML. It is one file that fetches nothing and can be attached to a ticket.

    `version` is that of throwstack, which the page says if it is given.
    """
    architecture = report.machine.architecture
    shown = report.crashes[:MOST_CRASHES]
    parts = [_process(f"p{index}", process, report) for index, process in enumerate(report.processes[:MOST_CRASHES], 1)]
    by_pid = {part.process.pid: part for part in parts}
    crashes = [
        crash_section(f"c{index}", crash, architecture, is_open=index <= _OPEN_CRASHES)
        for index, crash in enumerate(shown, 1)
    ]
    values = {
        "report": report,
        "version": version,
        "crashes": crashes,
        "processes": parts,
        "by_pid": by_pid,
        "trusts": explained(_frames(shown)),
    }
    return render("report.html", values)


def _process(key: str, process: ProcessReport, report: DumpReport) -> ProcessPart:
    architecture = report.machine.architecture
    kernel_digits = digits_of(Side.KERNEL, architecture)
    digits = 8 if process.is_wow64 else kernel_digits
    groups = tuple(
        GroupPart(
            group, stack_table(f"{key}-g{index}", "Stack", group.frames, digits=kernel_digits, ending=group.ending)
        )
        for index, group in enumerate(process.other_threads[:_MOST_GROUPS], 1)
    )
    return ProcessPart(key, process, digits, kernel_digits, groups)


def _frames(crashes: Sequence[CrashReport]) -> Iterator[FrameReport]:
    for crash in crashes:
        for walk in (crash.throwing, crash.blocked, *(exception.stack for exception in crash.exceptions)):
            yield from walk.frames if walk is not None else ()
        for exception in crash.exceptions:
            yield from exception.logical_stack
