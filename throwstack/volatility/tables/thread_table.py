# SPDX-License-Identifier: Apache-2.0
"""The table of `windows.stackwalk`, which has a row per thread, and below it one per frame.

Both kinds of row have all columns, so that each CSV line names its process and thread, and JSON has the frames as
children of their thread. The columns about frames are empty in a thread's row, and the columns about threads are empty
in a frame's row.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile

from volatility3.framework.renderers import format_hints

from throwstack.core.sides import Side
from throwstack.core.text import escape
from throwstack.names.name_style import NameStyle
from throwstack.report.stack_parts import StartRoutine, ThreadWait
from throwstack.report.thread_report import ThreadStackReport
from throwstack.volatility.objects.wait_objects import duration
from throwstack.volatility.tables.columns import ABSENT, Column, Row, joined
from throwstack.volatility.tables.frame_table import FrameRow, frame_columns, variable_note, variable_rows, who
from throwstack.volatility.tables.output import EVERY_COLUMN, Output

_MAX_TEXT = 2048
_MAX_ADDRESS_OF_X86 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class StackRow(FrameRow):
    """A row of the table: a thread's, or a frame's.

    `thread` is None in a frame's row. `same` are the other threads (`PID:TID`) whose stacks are equal to the thread's.
    """

    side: str = ""
    notes: str = ""
    thread: ThreadStackReport | None = None
    same: tuple[str, ...] = ()


@dataclass(slots=True)
class FoldedStack:
    """A thread's stack, and the other threads (`PID:TID`) whose stacks are equal to it."""

    thread: ThreadStackReport
    eprocess: int
    call_sites: tuple[tuple[str, str], ...]
    same: list[str] = field(default_factory=list)

    def matches(self, pattern: re.Pattern[str]) -> bool:
        """Say whether `pattern` is found in the call site of at least one frame."""
        return any(pattern.search(site) for _, site in self.call_sites)


class ThreadTable:
    """Turns reports on threads into rows."""

    def __init__(
        self,
        style: NameStyle,
        *,
        is_brief: bool = False,
        with_fpo: bool = False,
        unique: bool = False,
        output: Output = EVERY_COLUMN,
        is_64bit: bool = False,
    ) -> None:
        """Choose the columns.

        `style` says how functions are named. `is_brief` replaces the columns about threads by a one-line summary,
        `with_fpo` adds the column `FPO`, `unique` adds the columns about equal stacks, and `output` says which of all
        these are shown. If these are only those that fit a screen, the summary is in the place of a call site, and a
        64-bit machine (`is_64bit`), whose addresses are long and whose arguments are in registers, has no `Args`.
        """
        self._style = style
        self._is_brief = is_brief and not output.is_brief
        self._is_headed = output.is_brief
        self._output = output
        every: list[Column[StackRow]] = [
            *frame_columns(style, with_fpo=with_fpo, is_brief=output.is_brief),
            *_SIDE_COLUMNS,
        ]
        about_threads = [*(_UNIQUE_COLUMNS if unique else []), *([] if is_brief else _THREAD_COLUMNS)]
        self.columns: list[Column[StackRow]] = output.columns(
            [*every, *about_threads], [title for title in _SHOWN if not (is_64bit and title == _OF_32BIT)]
        )
        self._of_frames = list(takewhile(lambda column: column not in about_threads, self.columns))
        """The columns that a frame's row fills. All columns after them are about threads."""
        self._rest: Row = (ABSENT,) * (len(self.columns) - len(self._of_frames))

    def stack(self, thread: ThreadStackReport, eprocess: int) -> FoldedStack:
        """Return a thread with the call sites of its frames, by which its stack is searched and compared.

        `eprocess` is the kernel object of its process.
        """
        sites = tuple((part.side.value, escape(frame.call_site(self._style))) for part, frame in thread.frames)
        return FoldedStack(thread, eprocess, sites)

    def rows(self, stack: FoldedStack) -> Iterator[tuple[int, Row]]:
        """Yield (depth in the tree, row) for the thread, and then for each of its frames."""
        thread = stack.thread
        row = self._output.row
        notes = joined_text([*([summary(thread)] if self._is_brief else []), *thread.notes])
        title = escape(f"{who(thread.process)}: {summary(thread)}", _MAX_TEXT) if self._is_headed else ""
        digits = 16 if thread.ethread > _MAX_ADDRESS_OF_X86 else 8
        head = StackRow(
            *(thread.process, thread.tid, None, title, "", notes, thread, tuple(stack.same)),
            digits=digits,
            eprocess=stack.eprocess,
        )
        yield 0, row(self.columns, head)
        for part, frame in thread.frames:
            inside = StackRow(
                *(thread.process, thread.tid, frame, "", part.side.value, joined([frame.note])),
                digits=8 if part.side is Side.X86 else digits,
            )
            yield 1, row(self._of_frames, inside) + self._rest
            for variable in variable_rows(inside):
                noted = replace(variable, notes=joined([variable_note(variable)]))
                yield 2, row(self._of_frames, noted) + self._rest


def fold(stacks: Iterable[FoldedStack]) -> list[FoldedStack]:
    """Return each different stack among `stacks` once, most frequent first, with the threads that have it.

    Two stacks are equal if their call sites are equal, in the same order.
    """
    found: dict[tuple[tuple[str, str], ...], FoldedStack] = {}
    for stack in stacks:
        first = found.setdefault(stack.call_sites, stack)
        if first is not stack:
            first.same.append(f"{stack.thread.pid}:{stack.thread.tid}")
    return sorted(found.values(), key=lambda stack: -len(stack.same))


def summary(thread: ThreadStackReport) -> str:
    """Return a line that describes a thread: its state and wait, locks, start address, priority, and times."""
    text = thread.state
    wait = thread.wait
    more: list[str] = []
    if wait is not None:
        text += f" ({wait.reason}, {wait.mode}{', alertable' if wait.alertable else ''})"
        if wait.ticks is not None:
            text += f" for {wait.ticks} ticks ({duration(datetime.timedelta(seconds=wait.seconds or 0))})"
        if wait.objects:
            text += f" on {joined_list(wait.objects)}"
    counts = (("suspend", thread.suspend_count), ("freeze", thread.freeze_count))
    text += "".join(f", {label} count {count}" for label, count in counts if count)
    if wait is not None:
        more += [words for words in (wait.lock, wait.deadlock) if words]
    starts = (start.name for start in (thread.win32_start, thread.start) if start is not None and start.name)
    more += [f"start {name}" for name in islice(starts, 1)]
    more += [f"priority {thread.priority} (base {thread.base_priority})"] if thread.priority is not None else []
    more += [
        f"{label} time {duration(datetime.timedelta(seconds=seconds))}"
        for label, seconds in (("kernel", thread.kernel_seconds), ("user", thread.user_seconds))
        if seconds is not None
    ]
    return "; ".join([text, *more])


def joined_text(parts: Iterable[str]) -> str:
    """Return the notes on a thread as the text of one cell, shortened to the limit."""
    return escape("; ".join(parts), _MAX_TEXT)


def joined_list(items: Iterable[str]) -> str:
    """Return a list as the text of one cell, separated by commas and shortened to the limit."""
    return escape(", ".join(items), _MAX_TEXT)


def _digits(row: StackRow) -> int:
    return row.digits


def _of_thread(value: Callable[[ThreadStackReport], object]) -> Callable[[StackRow], object]:
    return lambda row: None if row.thread is None else value(row.thread)


def _of_wait(value: Callable[[ThreadWait], object]) -> Callable[[StackRow], object]:
    return _of_thread(lambda thread: None if thread.wait is None else value(thread.wait))


def _address_of(start: StartRoutine | None) -> object:
    return None if start is None else start.address


def _name_of(start: StartRoutine | None) -> object:
    return None if start is None or not start.is_named else escape(start.name)


def _stack_bound(which: str) -> Callable[[StackRow], object]:
    """Return a function from a row to the `stack_base` or `stack_limit` of the first stack part that has bounds.

    `which` is the name of the attribute.
    """

    def value(thread: ThreadStackReport) -> object:
        return next((getattr(part, which) for part in thread.parts if part.stack_base is not None), None)

    return _of_thread(value)


_SHOWN = (
    *("TID", "Frame", "Child-SP", "RetAddr", "Args", "Call Site", "Source", "Trust", "FPO", "Notes", "Threads"),
    "Same Stack",
)
"""The columns that a person sees without `--wide`, as far as the other options show them."""
_OF_32BIT = "Args"
_SIDE_COLUMNS: list[Column[StackRow]] = [
    Column("Side", str, lambda row: row.side or None),
    Column("Notes", str, lambda row: row.notes, is_prose=True),
]
_UNIQUE_COLUMNS: list[Column[StackRow]] = [
    Column("Threads", int, lambda row: None if row.thread is None else 1 + len(row.same)),
    Column("Same Stack", str, lambda row: joined_list(row.same) or None, is_prose=True),
]
_THREAD_COLUMNS: list[Column[StackRow]] = [
    Column("State", str, _of_thread(lambda thread: thread.state or None)),
    Column("Wait Reason", str, _of_wait(lambda wait: wait.reason or None)),
    Column("Wait Mode", str, _of_wait(lambda wait: wait.mode or None)),
    Column("Alertable", bool, _of_wait(lambda wait: wait.alertable)),
    Column("Waits For", str, _of_wait(lambda wait: joined_list(wait.objects) or None)),
    Column("Lock", str, _of_wait(lambda wait: escape(wait.lock) or None)),
    Column("Deadlock", str, _of_wait(lambda wait: escape(wait.deadlock, _MAX_TEXT) or None)),
    Column("Wait Ticks", int, _of_wait(lambda wait: wait.ticks)),
    Column("Wait Seconds", float, _of_wait(lambda wait: wait.seconds)),
    Column("Kernel Seconds", float, _of_thread(lambda thread: thread.kernel_seconds)),
    Column("User Seconds", float, _of_thread(lambda thread: thread.user_seconds)),
    Column("Priority", int, _of_thread(lambda thread: thread.priority)),
    Column("Base Priority", int, _of_thread(lambda thread: thread.base_priority)),
    Column("Priority Decrement", int, _of_thread(lambda thread: thread.priority_decrement)),
    Column("Context Switches", int, _of_thread(lambda thread: thread.context_switches)),
    Column("Suspend Count", int, _of_thread(lambda thread: thread.suspend_count)),
    Column("Freeze Count", int, _of_thread(lambda thread: thread.freeze_count)),
    Column("Start Address", format_hints.Hex, _of_thread(lambda thread: _address_of(thread.start)), _digits),
    Column("Start", str, _of_thread(lambda thread: _name_of(thread.start))),
    Column(
        "Win32 Start Address", format_hints.Hex, _of_thread(lambda thread: _address_of(thread.win32_start)), _digits
    ),
    Column("Win32 Start", str, _of_thread(lambda thread: _name_of(thread.win32_start))),
    Column("ETHREAD", format_hints.Hex, _of_thread(lambda thread: thread.ethread), _digits),
    Column("EPROCESS", format_hints.Hex, lambda row: row.eprocess, _digits),
    Column("TEB", format_hints.Hex, _of_thread(lambda thread: thread.teb), _digits),
    Column("Win32Thread", format_hints.Hex, _of_thread(lambda thread: thread.win32_thread), _digits),
    Column("Stack Base", format_hints.Hex, _stack_bound("stack_base"), _digits),
    Column("Stack Limit", format_hints.Hex, _stack_bound("stack_limit"), _digits),
    Column("Kernel Stack Init", format_hints.Hex, _of_thread(lambda thread: thread.kernel_stack_init), _digits),
    Column("Kernel Stack Current", format_hints.Hex, _of_thread(lambda thread: thread.kernel_stack_current), _digits),
    Column("Kernel Stack Base", format_hints.Hex, _of_thread(lambda thread: thread.kernel_stack_base), _digits),
    Column("Kernel Stack Limit", format_hints.Hex, _of_thread(lambda thread: thread.kernel_stack_limit), _digits),
    Column("Large Stack", bool, _of_thread(lambda thread: thread.has_large_stack)),
]
