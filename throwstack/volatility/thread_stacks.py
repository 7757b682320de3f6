# SPDX-License-Identifier: Apache-2.0
"""Makes a `ThreadStackReport`, which consists of plain values, of what the stack walk found of a thread."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import count

from throwstack.core.text import escape
from throwstack.names.symbols import Name
from throwstack.report.crash_report import ProcessSummary
from throwstack.report.frame_report import NO_DETAIL, WHOLE, FrameDetail, frame_reports
from throwstack.report.stack_parts import StackPartReport, StartRoutine, ThreadWait
from throwstack.report.thread_report import ThreadStackReport
from throwstack.report.values import Hexadecimal, hexadecimal
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.thread_survey import ThreadReport


def thread_stack(machine: Machine, report: ThreadReport, detail: FrameDetail = NO_DETAIL) -> ThreadStackReport:
    """Return the report on a thread as plain values; parts that cannot be made are absent, and the notes say why."""
    problems: list[str] = []
    with guarded(problems.append):
        return _made(machine, report, detail)
    process = ProcessSummary(report.owner.pid, escape(report.owner.name, WHOLE))
    return ThreadStackReport(process, report.thread.tid, Hexadecimal(report.thread.address), notes=tuple(problems))


def _made(machine: Machine, report: ThreadReport, detail: FrameDetail) -> ThreadStackReport:
    thread, facts = report.thread, report.blockage.facts
    parts: list[StackPartReport] = []
    wait: ThreadWait | None = None
    problems: list[str] = []
    with guarded(problems.append):
        parts += _parts(report, detail)
    with guarded(problems.append):
        wait = _wait(machine, report) if facts.is_waiting else None
    return ThreadStackReport(
        process=ProcessSummary(report.owner.pid, escape(report.owner.name, WHOLE)),
        tid=thread.tid,
        ethread=Hexadecimal(thread.address),
        parts=tuple(parts),
        state=facts.state_name,
        wait=wait,
        kernel_seconds=_seconds(machine, facts.kernel_ticks),
        user_seconds=_seconds(machine, facts.user_ticks),
        priority=facts.priority,
        base_priority=facts.base_priority,
        priority_decrement=facts.priority_decrement,
        context_switches=facts.context_switches,
        suspend_count=facts.suspend_count,
        freeze_count=facts.freeze_count,
        start=_start(facts.start, report.start),
        win32_start=_start(facts.win32_start, report.win32_start),
        teb=hexadecimal(thread.teb or None),
        win32_thread=hexadecimal(facts.win32_thread or None),
        kernel_stack_init=hexadecimal(thread.initial_stack or None),
        kernel_stack_current=hexadecimal(thread.kernel_stack or None),
        kernel_stack_base=hexadecimal(facts.stack_base or None),
        kernel_stack_limit=hexadecimal(facts.stack_limit or None),
        has_large_stack=None if facts.large_stack is None else bool(facts.large_stack),
        notes=tuple(escape(note, WHOLE) for note in [*_notes(report), *problems]),
    )


def _parts(report: ThreadReport, detail: FrameDetail) -> Iterator[StackPartReport]:
    numbers = count()
    process = report.owner.process
    substitutes: AbstractSet[int] = frozenset() if process is None else process.pages.substitutes
    for part in report.sides:
        said = f"{part.side.value} stack ends here: {part.ending}" if part.ending else ""
        frames = frame_reports(part.target, part.frames, substitutes, numbers=numbers, ending=said, detail=detail)
        bounds = part.bounds
        yield StackPartReport(
            part.side,
            tuple(frames),
            escape(part.ending, WHOLE),
            None if bounds is None else hexadecimal(bounds.base or None),
            None if bounds is None else hexadecimal(bounds.limit or None),
        )


def _notes(report: ThreadReport) -> Iterator[str]:
    if report.problem:
        yield report.problem
    yield from report.owner.problems
    for part in report.sides:
        if part.ending and not part.frames:
            yield f"{part.side.value} stack: {part.ending}"
    if report.blockage.wait.problem:
        yield report.blockage.wait.problem


def _wait(machine: Machine, report: ThreadReport) -> ThreadWait:
    blockage = report.blockage
    facts = blockage.facts
    ticks, seconds = _waited(machine, report)
    return ThreadWait(
        reason=facts.wait_reason_name,
        mode=facts.wait_mode_name,
        alertable=None if facts.alertable is None else bool(facts.alertable),
        ticks=ticks,
        seconds=seconds,
        objects=tuple(escape(str(item), WHOLE) for item in blockage.wait.objects),
        lock="" if blockage.lock is None else escape(str(blockage.lock), WHOLE),
        deadlock=_deadlock(report),
    )


def _start(address: int | None, name: Name | None) -> StartRoutine | None:
    if not address:
        return None
    named = name is not None and bool(name.module)
    return StartRoutine(Hexadecimal(address), "" if name is None else escape(str(name), WHOLE), named)


def _deadlock(report: ThreadReport) -> str:
    if not report.cycle:
        return ""
    shown = report.cycle[:WHOLE]  # each node takes more than a character
    nodes = " -> ".join(str(node) for node in (*shown, report.cycle[0]))
    is_in = any(node.address == report.thread.address for node in report.cycle)
    return escape(f"deadlock {nodes}" if is_in else f"waits behind deadlock {nodes}", WHOLE)


def _waited(machine: Machine, report: ThreadReport) -> tuple[int | None, float | None]:
    """Return how long a thread has waited, in ticks and in seconds; each is None if it is not known."""
    clock, since = machine.clock, report.thread.wait_ticks
    if clock is None or since is None:
        return None, None
    ticks = clock.ticks_since(since)
    return ticks, _seconds(machine, ticks)


def _seconds(machine: Machine, ticks: int | None) -> float | None:
    clock = machine.clock
    return None if ticks is None or clock is None else ticks * clock.milliseconds_per_tick / 1000
