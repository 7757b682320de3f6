# SPDX-License-Identifier: Apache-2.0
"""The report on a whole dump as one self-contained HTML page: `page_of`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from throwstack.report.crash_order import is_stuck, worst_first
from throwstack.report.crash_report import CrashReport
from throwstack.report.dump_report import DumpReport
from throwstack.report.frame_report import FrameReport
from throwstack.report.page.crash_section import crash_section
from throwstack.report.page.page_limits import MOST_CRASHES, MOST_GROUPS, MOST_LETTERS, fitting, frames_of, letters_of
from throwstack.report.page.page_templates import render
from throwstack.report.page.stack_table import StackTable, stack_table
from throwstack.report.page.trust_words import explained
from throwstack.report.process_report import ProcessReport, process_of
from throwstack.report.text.process_lines import calls_of
from throwstack.report.text.spelling import is_wide
from throwstack.report.thread_groups import ThreadGroup

_OPEN_CRASHES = 5


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
    sizes = [letters_of(frames_of(crash)) for crash in ordered[:MOST_CRASHES]]
    shown = ordered[: max(fitting(sizes, MOST_LETTERS), 1)]
    parts = list(_processes(report.processes[:MOST_CRASHES], MOST_LETTERS - sum(sizes[: len(shown)])))
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
        "hidden_count": sum(warning.may_hide_crash for warning in report.warnings) + len(report.unexamined),
        "part_of": partial(_part_of, parts),
        "trusts": explained(_frames(shown, parts)),
    }
    return render("report.html", values)


def _part_of(parts: Sequence[ProcessPart], crash: CrashReport) -> ProcessPart | None:
    process = process_of(crash, (part.process for part in parts))
    return next((part for part in parts if part.process is process), None)


def _processes(processes: Sequence[ProcessReport], room: int) -> Iterator[ProcessPart]:
    """Yield the processes with those of their other threads that fit into `room`."""
    for number, process in enumerate(processes, 1):
        sizes = [letters_of(group.frames) for group in process.other_threads[:MOST_GROUPS]]
        count = fitting(sizes, room)
        room -= sum(sizes[:count])
        groups = (
            GroupPart(group, _group_stack(f"p{number}-g{index}", group))
            for index, group in enumerate(process.other_threads[:count], 1)
        )
        yield ProcessPart(f"p{number}", process, tuple(groups))


def _group_stack(key: str, group: ThreadGroup) -> StackTable | None:
    """Return the stack of a group, whose frames are of the kernel and of the user's code: the wider ones decide."""
    is_64bit = any(is_wide(frame.ip) or is_wide(frame.sp) for frame in group.frames)
    return stack_table(key, "Stack", group.frames, is_64bit=is_64bit, ending=group.ending)


def _frames(crashes: Sequence[CrashReport], processes: Sequence[ProcessPart]) -> Iterator[FrameReport]:
    """Yield all frames that are on the page."""
    for crash in crashes:
        yield from frames_of(crash)
    for part in processes:
        for group in part.groups:
            yield from group.group.frames
