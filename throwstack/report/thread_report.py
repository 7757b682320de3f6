# SPDX-License-Identifier: Apache-2.0
"""The report on any thread, stuck or not, `ThreadStackReport`.

As in `throwstack.report.crash_report`, it consists of plain values, every string is escaped, and values that are not
known are absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.report.crash_report import ProcessSummary
from throwstack.report.frame_report import FrameReport
from throwstack.report.stack_parts import StackPartReport, StartRoutine, ThreadWait
from throwstack.report.values import Hexadecimal


@dataclass(frozen=True, slots=True)
class ThreadStackReport:
    """A thread: its state, its wait, its times and priorities, and its whole stack, innermost part first."""

    process: ProcessSummary
    tid: int
    ethread: Hexadecimal
    parts: tuple[StackPartReport, ...] = ()
    state: str = ""
    wait: ThreadWait | None = None
    kernel_seconds: float | None = None
    user_seconds: float | None = None
    priority: int | None = None
    base_priority: int | None = None
    priority_decrement: int | None = None
    context_switches: int | None = None
    suspend_count: int | None = None
    freeze_count: int | None = None
    start: StartRoutine | None = None
    win32_start: StartRoutine | None = None
    teb: Hexadecimal | None = None
    win32_thread: Hexadecimal | None = None
    kernel_stack_init: Hexadecimal | None = None
    kernel_stack_current: Hexadecimal | None = None
    kernel_stack_base: Hexadecimal | None = None
    kernel_stack_limit: Hexadecimal | None = None
    has_large_stack: bool | None = None
    notes: tuple[str, ...] = ()

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self.process.pid

    @property
    def frames(self) -> Iterator[tuple[StackPartReport, FrameReport]]:
        """Yield every frame with the part it belongs to, innermost first."""
        for part in self.parts:
            for frame in part.frames:
                yield part, frame
