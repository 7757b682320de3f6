# SPDX-License-Identifier: Apache-2.0
"""The report on a whole dump as one self-contained HTML page: `page_of`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from throwstack.report.crash_order import is_stuck, worst_first
from throwstack.report.crash_report import CrashReport
from throwstack.report.dump_report import DumpReport
from throwstack.report.frame_report import FrameReport
from throwstack.report.page.crash_section import crash_section
from throwstack.report.page.page_templates import render
from throwstack.report.page.stack_table import StackTable, stack_table
from throwstack.report.page.trust_words import explained
from throwstack.report.process_report import ProcessReport
from throwstack.report.text.process_lines import calls_of
from throwstack.report.text.spelling import is_wide
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
    def calls(self) -> str:
        """Return the functions that tell what the threads are about."""
        return calls_of(self.group)


@dataclass(frozen=True, slots=True)
class ProcessPart:
    """A process on a page, with its other threads."""

    key: str
    process: ProcessReport
    groups: tuple[GroupPart, ...]

    @property
    def has_wide_modules(self) -> bool:
        """Say whether an address of a module takes 16 digits."""
        return any(is_wide(module.base) for module in self.process.modules)

    @property
    def thread_count(self) -> int:
        """Return the number of threads that are not stuck."""
        return sum(len(group.tids) for group in self.process.other_threads)


def page_of(report: DumpReport, *, version: str = "") -> str:
    """Return the report as a page of HTML. It is one file that fetches nothing and can be attached to a ticket.

    `version` is that of throwstack, which the page says if it is given.
    """
    ordered = worst_first(report.crashes)
    shown = ordered[:MOST_CRASHES]
    parts = [_process(f"p{index}", process) for index, process in enumerate(report.processes[:MOST_CRASHES], 1)]
    by_pid = {part.process.pid: part for part in parts}
    crashes = [
        crash_section(f"c{index}", crash, is_open=index <= _OPEN_CRASHES) for index, crash in enumerate(shown, 1)
    ]
    values = {
        "report": report,
        "version": version,
        "ordered": ordered,
        "stuck_count": sum(map(is_stuck, ordered)),
        "crashes": crashes,
        "processes": parts,
        "by_pid": by_pid,
        "trusts": explained(_frames(shown, parts)),
    }
    return render("report.html", values)


def _process(key: str, process: ProcessReport) -> ProcessPart:
    groups = tuple(
        GroupPart(group, _group_stack(f"{key}-g{index}", group))
        for index, group in enumerate(process.other_threads[:_MOST_GROUPS], 1)
    )
    return ProcessPart(key, process, groups)


def _group_stack(key: str, group: ThreadGroup) -> StackTable | None:
    """Return the stack of a group, whose frames are of the kernel and of the user's code: the wider ones decide."""
    is_64bit = any(is_wide(frame.ip) or is_wide(frame.sp) for frame in group.frames)
    return stack_table(key, "Stack", group.frames, is_64bit=is_64bit, ending=group.ending)


def _frames(crashes: Sequence[CrashReport], processes: Sequence[ProcessPart]) -> Iterator[FrameReport]:
    """Yield all frames that are on the page."""
    for crash in crashes:
        walks = (crash.throwing, crash.blocked, crash.kernel_stack, *(one.stack for one in crash.exceptions))
        for walk in walks:
            yield from walk.frames if walk is not None else ()
        for exception in crash.exceptions:
            yield from exception.logical_stack
    for part in processes:
        for group in part.groups:
            yield from group.group.frames
