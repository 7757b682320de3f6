# SPDX-License-Identifier: Apache-2.0
"""A crash: the headline, what and where, the stacks, the process, and the lines to go on with in WinDbg."""

from __future__ import annotations

from collections.abc import Iterator

from throwstack.core.text import in_quotes, with_marked_quotes
from throwstack.report.crash_report import CrashReport, ExceptionReport
from throwstack.report.frame_report import FrameReport, WalkReport
from throwstack.report.key_frames import program_frame, thrown_frame
from throwstack.report.process_report import ProcessReport
from throwstack.report.stack_parts import StartRoutine, ThreadFigures
from throwstack.report.text.debugger_lines import debugger_commands
from throwstack.report.text.exception_lines import context_lines, logical_lines, record_lines
from throwstack.report.text.process_lines import process_lines
from throwstack.report.text.register_lines import register_lines
from throwstack.report.text.spelling import (
    address,
    argument,
    both_bases,
    count,
    duration,
    is_64bit_code,
    is_64bit_system,
    is_wide,
)
from throwstack.report.text.spelling import time as time_text
from throwstack.report.text.stack_lines import provenance, stack_lines
from throwstack.report.text.text_lines import Line, Tone, below, labelled
from throwstack.report.text.wait_lines import wait_lines
from throwstack.stuck.stuck_thread import ExceptionRole

_SHOWN_BELOW = "throwing stack ends early"
"""How a note begins that the last frame of the stack has as well."""
_FURTHER = {
    ExceptionRole.CAUSE: "Another exception on this thread",
    ExceptionRole.END: "It was ended by another exception",
    ExceptionRole.OUTER: "It was raised while another exception was being handled",
}


def headline(crash: CrashReport) -> str:
    """Return `iftpsvc.exe (2564 = 0xa04), thread 2792 = 0xae8: crashed inside shutdown`."""
    who = f"{crash.process.name} ({both_bases(crash.pid)}), thread {both_bases(crash.tid)}"
    return f"{who}: {crash.verdict.text or 'stuck'}"


def crash_lines(crash: CrashReport, process: ProcessReport | None) -> Iterator[Line]:
    """Yield the lines of a crash; `process` is its process, None if nothing more is known of that."""
    yield Line(f"== {headline(crash)} =", Tone.CRASH, 3, rule="=")
    yield Line()
    yield from _summary(crash)
    if process is not None:
        yield from process_lines(process)
    yield from _thread(crash)
    for doubt in crash.doubts:
        yield labelled("Doubt", doubt, Tone.DOUBT)
    for note in (*crash.notes, *crash.process.problems):
        if not note.startswith(_SHOWN_BELOW):
            yield labelled("Note", note)
    if crash.exception is not None:
        yield from _throw(crash, crash.exception)
    for exception in crash.exceptions[1:]:
        yield from _further(crash, exception)
    yield from wait_lines(crash)


def _summary(crash: CrashReport) -> Iterator[Line]:
    exception = crash.exception
    if exception is not None:
        yield labelled("What", exception.title or f"exception {exception.code:08x}", Tone.HEADING)
        message = exception.message
        if message and message not in exception.title and with_marked_quotes(message) not in exception.title:
            yield below(in_quotes(message))
    if crash.thrown_at:
        yield labelled("Where", _with_source(crash.thrown_at, thrown_frame(crash)))
        program = program_frame(crash)
        if program is not None:
            yield below(f"for {_with_source(program.name, program)}")
    yield labelled("Stuck", _stuck(crash))
    if crash.box_text:
        yield below(f"shows the box {in_quotes(crash.box_text)}")
    if crash.signature is not None:
        yield labelled("Signature", str(crash.signature))


def _with_source(name: str, frame: FrameReport | None) -> str:
    return f"{name}   [{frame.source}]" if frame is not None and frame.source else name


def _stuck(crash: CrashReport) -> str:
    parts = []
    if crash.blocked_since is not None:
        waited = None if crash.wait is None else crash.wait.seconds
        ago = "" if waited is None else f" ({duration(waited)} before the dump)"
        parts.append(f"since {time_text(crash.blocked_since, digits=3)}{ago}")
    if crash.blockers:
        parts.append(f"in {crash.blocked_in}")
    return ", ".join(parts) or "in a place that is not known"


def _thread(crash: CrashReport) -> Iterator[Line]:
    figures = crash.thread
    if figures is None:
        return
    routines = (("started by", figures.start), ("with", figures.win32_start))
    starts = " ".join(f"{word} {_routine(routine)}" for word, routine in routines if routine is not None)
    counts = ", ".join(_counts(figures))
    yield labelled("Thread", starts or counts or figures.state)
    if starts and counts:
        yield below(counts)
    system = is_64bit_system(crash)
    pointers = (("ETHREAD", crash.ethread), ("TEB", figures.teb), ("Win32Thread", figures.win32_thread))
    known = [f"{name} {address(value, is_64bit=system)}" for name, value in pointers if value is not None]
    if crash.stack_bounds is not None:
        wide = is_64bit_code(crash)
        low, high = crash.stack_bounds.limit, crash.stack_bounds.base
        known.append(f"stack {address(low, is_64bit=wide)} to {address(high, is_64bit=wide)}")
    yield below(", ".join(known), Tone.FAINT)
    parts = (("Init", "init"), ("Current", "current"), ("Base", "base"), ("Limit", "limit"))
    values = ((word, getattr(figures, f"kernel_stack_{name}")) for word, name in parts)
    kernel = [f"{word} {address(value, is_64bit=system)}" for word, value in values if value is not None]
    if kernel:
        yield below(f"kernel stack {' '.join(kernel)}", Tone.FAINT)


def _routine(start: StartRoutine) -> str:
    place = address(start.address, is_64bit=is_wide(start.address))
    return f"{start.name} ({place})" if start.is_named else place


def _counts(figures: ThreadFigures) -> Iterator[str]:
    if figures.priority is not None:
        base = "" if figures.base_priority is None else f" (base {figures.base_priority})"
        yield f"priority {figures.priority}{base}"
    if figures.context_switches is not None:
        yield count(figures.context_switches, "context switch", "context switches")
    for word, seconds in (("user", figures.user_seconds), ("kernel", figures.kernel_seconds)):
        if seconds:
            yield f"{word} time {seconds:.3f} s"
    for word, number in (("suspended", figures.suspend_count), ("frozen", figures.freeze_count)):
        if number:
            yield word


def _throw(crash: CrashReport, exception: ExceptionReport) -> Iterator[Line]:
    walk, is_64bit = crash.throwing, is_64bit_code(crash)
    if walk is not None:
        yield from _stack("  The stack that threw", walk, is_64bit=is_64bit)
    yield from logical_lines(exception.logical_stack)
    yield Line()
    yield Line("  Exception record, and registers at the throw", Tone.HEADING)
    yield from record_lines(exception, is_64bit=is_64bit)
    yield from context_lines(exception, is_64bit=is_64bit)
    if walk is not None and walk.frames and walk.frames[0].registers:
        yield from register_lines(walk.frames[0])


def _stack(title: str, walk: WalkReport, *, is_64bit: bool) -> Iterator[Line]:
    yield Line()
    yield Line(title, Tone.HEADING)
    yield from stack_lines(walk.frames, is_64bit=is_64bit)
    yield provenance(walk.frames)
    if not walk.is_complete and not (walk.frames and walk.frames[-1].note):
        yield Line(f"  The stack ends early: {walk.end.in_words(walk.detail)}", Tone.DOUBT)


def _further(crash: CrashReport, exception: ExceptionReport) -> Iterator[Line]:
    is_64bit = is_64bit_code(crash)
    yield Line()
    title = exception.title or f"exception {exception.code:08x}"
    yield Line(f"  {_FURTHER[exception.role]}: {title}", Tone.HEADING, 6)
    if exception.thrown_at:
        yield labelled("Where", exception.thrown_at)
    yield from record_lines(exception, is_64bit=is_64bit)
    yield from context_lines(exception, is_64bit=is_64bit)
    if exception.stack is not None:
        yield from _stack("  The stack that threw it", exception.stack, is_64bit=is_64bit)
    yield from logical_lines(exception.logical_stack)


def further_commands(crash: CrashReport, file: str) -> Iterator[Line]:
    """Yield the lines to go on with, in WinDbg and with our own commands."""
    commands = debugger_commands(crash)
    if commands:
        yield labelled("In WinDbg", "; ".join(commands))
    yield labelled(
        "Also", f"throwstack minidump {argument(file)} --pid {crash.pid}   a minidump of this process, to attach"
    )
