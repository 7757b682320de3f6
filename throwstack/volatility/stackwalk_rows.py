# SPDX-License-Identifier: Apache-2.0
"""Rows of `windows.stackwalk`: a row per thread, and below it one per frame.

Both kinds of row have all columns, so that a CSV line says whose it is and JSON has the frames as a thread's
children. Columns of frames are empty in a thread's row, and those of threads in a frame's.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

from volatility3.framework import renderers
from volatility3.framework.renderers import format_hints

from throwstack.core.frames import Frame
from throwstack.core.text import escape
from throwstack.names.symbols import Name
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.wait_objects import ThreadId, duration
from throwstack.volatility.rows import (
    FPO_COLUMNS,
    FRAME_COLUMNS,
    Column,
    NameStyle,
    Row,
    bare_columns,
    call_site,
    fpo_column,
    frame_columns,
    or_absent,
    safe_names,
)
from throwstack.volatility.thread_survey import ThreadReport
from throwstack.volatility.thread_walks import StackPart

_MAX_TEXT = 2048

SIDE_COLUMNS: list[Column] = [("Side", str), ("Notes", str)]
THREAD_COLUMNS: list[Column] = [
    ("State", str),
    ("Wait Reason", str),
    ("Wait Mode", str),
    ("Alertable", bool),
    ("Waits For", str),
    ("Lock", str),
    ("Deadlock", str),
    ("Wait Ticks", int),
    ("Wait Seconds", float),
    ("Kernel Seconds", float),
    ("User Seconds", float),
    ("Priority", int),
    ("Base Priority", int),
    ("Priority Decrement", int),
    ("Context Switches", int),
    ("Suspend Count", int),
    ("Freeze Count", int),
    ("Start Address", format_hints.Hex),
    ("Start", str),
    ("Win32 Start Address", format_hints.Hex),
    ("Win32 Start", str),
    ("ETHREAD", format_hints.Hex),
    ("TEB", format_hints.Hex),
    ("Win32Thread", format_hints.Hex),
    ("Stack Base", format_hints.Hex),
    ("Stack Limit", format_hints.Hex),
    ("Kernel Stack Init", format_hints.Hex),
    ("Kernel Stack Current", format_hints.Hex),
    ("Kernel Stack Base", format_hints.Hex),
    ("Kernel Stack Limit", format_hints.Hex),
    ("Large Stack", bool),
]
UNIQUE_COLUMNS: list[Column] = [("Threads", int), ("Same Stack", str)]
_ABSENT = renderers.NotAvailableValue()


@dataclass
class Stack:
    """A thread's rows, its own and its frames', and the threads whose stacks are equal.

    It holds nothing of the process, so that many can be kept.
    """

    identity: ThreadId
    head: Row
    notes: str
    facts: Row
    frames: list[Row]
    call_sites: tuple[tuple[str, str], ...]
    same: list[ThreadId] = field(default_factory=list)

    def matches(self, pattern: re.Pattern[str]) -> bool:
        """Say whether one of the frames has a call site that `pattern` is found in."""
        return any(pattern.search(site) for _, site in self.call_sites)


class StackRows:
    """Turns reports into rows."""

    def __init__(self, machine: Machine, style: NameStyle, *, is_brief: bool, with_fpo: bool = False) -> None:
        """Take the machine, for its clock; `is_brief` leaves the columns of threads out, `with_fpo` adds that one."""
        self._machine = machine
        self._style = style
        self._is_brief = is_brief
        self._fpo_columns = FPO_COLUMNS if with_fpo else []

    def columns(self, *, unique: bool) -> list[Column]:
        """Return the columns of the table."""
        threads = [] if self._is_brief else THREAD_COLUMNS
        return [*FRAME_COLUMNS, *self._fpo_columns, *SIDE_COLUMNS, *(UNIQUE_COLUMNS if unique else []), *threads]

    def stack(self, report: ThreadReport) -> Stack:
        """Return a report's frames as rows. What cannot be made is absent, and the notes say why."""
        rows: list[Row] = []
        sites: list[tuple[str, str]] = []
        head = (report.owner.pid, escape(report.owner.name), report.thread.tid)
        numbers = count()
        for side in report.sides:
            for index, frame in enumerate(side.frames):
                for name, columns, notes in self._frame(side, frame, is_last=index == len(side.frames) - 1):
                    rows.append((*head, next(numbers), *columns, side.label, notes))
                    sites.append((side.label, call_site(name, self._style)))
        identity = ThreadId(report.owner.pid, report.thread.tid, report.thread.address)
        problems: list[str] = []
        facts: Row = () if self._is_brief else (_ABSENT,) * len(THREAD_COLUMNS)
        notes = report.problem
        with guarded(problems.append):
            notes = self._notes(report)
            facts = facts and self._facts(report)
        return Stack(identity, head, "; ".join([*filter(None, [notes]), *problems]), facts, rows, tuple(sites))

    def _frame(self, side: StackPart, frame: Frame, *, is_last: bool) -> Iterator[tuple[Name, Row, str]]:
        """Yield (name, columns of the frame, notes) for each function at a frame."""
        with_fpo = bool(self._fpo_columns)
        problems: list[str] = []
        for name in safe_names(side.target, frame, problems.append):
            notes = [frame.note] if frame.note and not name.is_inline else []
            if side.ending and is_last and not name.is_inline:
                notes.append(f"{side.label} stack ends here: {side.ending}")
            columns = bare_columns(frame, with_fpo=with_fpo)
            with guarded(problems.append):
                made = frame_columns(side.target, frame, name, self._style)
                columns = made + ((fpo_column(side.target, frame, name),) if with_fpo else ())
            yield name, columns, escape("; ".join([*notes, *problems]))

    def rows(self, stack: Stack, *, unique: bool) -> Iterator[tuple[int, Row]]:
        """Yield (depth, row): the thread's, then its frames'."""
        folded = (1 + len(stack.same), _joined(stack.same) or _ABSENT) if unique else ()
        # All but Notes, which both kinds of row have.
        of_frames = (_ABSENT,) * (len(FRAME_COLUMNS) + len(self._fpo_columns) + len(SIDE_COLUMNS) - len(stack.head) - 1)
        yield 0, (*stack.head, *of_frames, stack.notes, *folded, *stack.facts)
        empty = (_ABSENT,) * (len(folded) + len(stack.facts))
        for row in stack.frames:
            yield 1, (*row, *empty)

    def _notes(self, report: ThreadReport) -> str:
        notes = [self.summary(report)] if self._is_brief else []
        notes += [report.problem] if report.problem else []
        notes += [*report.owner.problems]
        notes += [f"{side.label} stack: {side.ending}" for side in report.sides if side.ending and not side.frames]
        if report.blockage.wait.problem:
            notes.append(report.blockage.wait.problem)
        return escape("; ".join(notes), _MAX_TEXT)

    def summary(self, report: ThreadReport) -> str:
        """Return what there is to say of a thread in a line: how it waits, locks, start, priority, times."""
        blockage = report.blockage
        facts = blockage.facts
        parts = [facts.state_name]
        if facts.is_waiting:
            parts[0] += f" ({facts.wait_reason_name}, {facts.wait_mode_name}{', alertable' if facts.alertable else ''})"
            ticks, milliseconds = self._waited(report)
            if ticks is not None:
                parts.append(f"for {ticks} ticks ({duration(datetime.timedelta(milliseconds=milliseconds or 0))})")
            if blockage.wait.objects:
                parts.append(f"on {_joined(blockage.wait.objects)}")
        text = " ".join(parts)
        counts = (("suspend", facts.suspend_count), ("freeze", facts.freeze_count))
        text += "".join(f", {label} count {count}" for label, count in counts if count)
        more = [str(blockage.lock)] if blockage.lock is not None else []
        more += [_deadlock(report)] if report.circle else []
        start = report.win32_start or report.start
        more += [f"start {start}"] if start is not None else []
        more += [f"priority {facts.priority} (base {facts.base_priority})"] if facts.priority is not None else []
        times = [self._seconds(ticks) for ticks in (facts.kernel_ticks, facts.user_ticks)]
        more += [
            f"{label} time {duration(datetime.timedelta(seconds=seconds))}"
            for label, seconds in zip(("kernel", "user"), times, strict=True)
            if seconds is not None
        ]
        return "; ".join([text, *more])

    def _facts(self, report: ThreadReport) -> Row:
        thread, blockage = report.thread, report.blockage
        facts = blockage.facts
        ticks, milliseconds = self._waited(report)
        is_waiting = facts.is_waiting
        bounds = next((side.bounds for side in report.sides if side.bounds is not None), None)
        return (
            facts.state_name or _ABSENT,
            (is_waiting and facts.wait_reason_name) or _ABSENT,
            (is_waiting and facts.wait_mode_name) or _ABSENT,
            _flag(facts.alertable if is_waiting else None),
            _joined(blockage.wait.objects) or _ABSENT,
            or_absent(None if blockage.lock is None else escape(str(blockage.lock))),
            _deadlock(report) or _ABSENT,
            or_absent(ticks),
            or_absent(None if milliseconds is None else milliseconds / 1000),
            or_absent(self._seconds(facts.kernel_ticks)),
            or_absent(self._seconds(facts.user_ticks)),
            or_absent(facts.priority),
            or_absent(facts.base_priority),
            or_absent(facts.priority_decrement),
            or_absent(facts.context_switches),
            or_absent(facts.suspend_count),
            or_absent(facts.freeze_count),
            _hex(facts.start),
            _named(report.start),
            _hex(facts.win32_start),
            _named(report.win32_start),
            format_hints.Hex(thread.address),
            _hex(thread.teb),
            _hex(facts.win32_thread),
            _hex(None if bounds is None else bounds.base),
            _hex(None if bounds is None else bounds.limit),
            _hex(thread.initial_stack),
            _hex(thread.kernel_stack),
            _hex(facts.stack_base),
            _hex(facts.stack_limit),
            _flag(facts.large_stack),
        )

    def _waited(self, report: ThreadReport) -> tuple[int | None, float | None]:
        """Return how long a waiting thread has waited, in ticks and in milliseconds."""
        clock = self._machine.clock
        wait_ticks = report.thread.wait_ticks
        if clock is None or wait_ticks is None or not report.blockage.facts.is_waiting:
            return None, None
        ticks = clock.ticks_since(wait_ticks)
        return ticks, None if ticks is None else ticks * clock.milliseconds_per_tick

    def _seconds(self, ticks: int | None) -> float | None:
        clock = self._machine.clock
        return None if ticks is None or clock is None else ticks * clock.milliseconds_per_tick / 1000


def fold(stacks: Iterable[Stack]) -> list[Stack]:
    """Return the different ones among `stacks`, most frequent first, each with the threads that share it.

    Stacks are equal if their call sites are.
    """
    found: dict[tuple[tuple[str, str], ...], Stack] = {}
    for stack in stacks:
        first = found.setdefault(stack.call_sites, stack)
        if first is not stack:
            first.same.append(stack.identity)
    return sorted(found.values(), key=lambda stack: -len(stack.same))


def _deadlock(report: ThreadReport) -> str:
    if not report.circle:
        return ""
    shown = report.circle[:_MAX_TEXT]  # each node takes more than a character
    nodes = " -> ".join(str(node) for node in (*shown, report.circle[0]))
    is_in = any(node.address == report.thread.address for node in report.circle)
    return escape(f"deadlock {nodes}" if is_in else f"waits behind deadlock {nodes}", _MAX_TEXT)


def _joined(items: Iterable[object]) -> str:
    return escape(", ".join(str(item) for item in items), _MAX_TEXT)


def _named(name: Name | None) -> object:
    return _ABSENT if name is None or not name.module else escape(str(name))


def _hex(value: int | None) -> object:
    return format_hints.Hex(value) if value else _ABSENT


def _flag(value: int | None) -> object:
    return _ABSENT if value is None else bool(value)
