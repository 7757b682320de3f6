# SPDX-License-Identifier: Apache-2.0
"""Where a stuck thread waits: what for, and its stack, kernel to user, as far as the stack that threw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from throwstack.report.crash_report import CrashReport
from throwstack.report.frame_report import FrameReport
from throwstack.report.key_frames import shared_frames
from throwstack.report.stack_parts import ThreadWait
from throwstack.report.text.spelling import count, duration, is_64bit_code, is_wide
from throwstack.report.text.stack_lines import provenance, stack_lines
from throwstack.report.text.text_lines import Line, Tone


def wait_lines(crash: CrashReport) -> Iterator[Line]:
    """Yield the wait and the stack on which `crash` waits; nothing if neither is known."""
    if crash.blocked is None and crash.kernel_stack is None:
        return
    yield Line()
    yield Line("  Where it waits, kernel to user", Tone.HEADING)
    if crash.wait is not None:
        yield from _wait(crash.wait)
    kernel = () if crash.kernel_stack is None else crash.kernel_stack.frames
    is_64bit = is_64bit_code(crash)
    if crash.kernel_stack is not None and crash.kernel_stack.ending:
        yield Line(f"  the kernel stack ends early: {crash.kernel_stack.ending}", Tone.DOUBT)
    blocked = () if crash.blocked is None else crash.blocked.frames
    shared = shared_frames(crash)
    values = crash.throwing is None  # else those of the program are on the stack that threw
    own = _numbered(blocked[: len(blocked) - shared], len(kernel))
    if kernel and is_64bit == is_wide(kernel[0].ip):
        frames = (*kernel, *own)
        yield from stack_lines(frames, is_64bit=is_64bit, values=values)
        yield provenance(frames)
    else:
        for part, wide in ((kernel, True), (own, is_64bit)):
            if part:
                yield from stack_lines(part, is_64bit=wide, values=values)
                yield provenance(part)
    if shared:
        first = len(kernel) + len(blocked) - shared
        yield Line(f"  From frame {first:02x} on it is the stack that threw, above.", Tone.FAINT)


def _wait(wait: ThreadWait) -> Iterator[Line]:
    words = [wait.reason, wait.mode]
    if wait.alertable is not None:
        words.append("Alertable" if wait.alertable else "Non-Alertable")
    since = ""
    if wait.ticks is not None and wait.seconds is not None:
        since = f", for {count(wait.ticks, 'tick')} ({_exactly(wait.seconds)})"
    yield Line(f"  WAIT: {' '.join(filter(None, words))}{since}", Tone.PLAIN, 8)
    for item in wait.objects:
        yield Line(f"      {item}", Tone.PLAIN, 10)
    for text in filter(None, (wait.lock, wait.deadlock)):
        yield Line(f"      {text}", Tone.DOUBT, 10)


def _exactly(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 1 else duration(seconds)


def _numbered(frames: Sequence[FrameReport], first: int) -> tuple[FrameReport, ...]:
    return tuple(replace(frame, number=frame.number + first) for frame in frames)
