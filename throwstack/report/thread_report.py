# SPDX-License-Identifier: Apache-2.0
"""What there is to say of any thread, stuck or not, as values: `ThreadStackReport`.

The same rules hold as for `throwstack.report.crash_report`: values only, every string escaped, unknown is absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.sides import Side
from throwstack.report.crash_report import ProcessSummary
from throwstack.report.frame_report import FrameReport
from throwstack.report.values import Hexadecimal


@dataclass(frozen=True, slots=True)
class StackPartReport:
    """The frames of a thread on one side, innermost first. `ending` says why they end early, or is empty.

    The stack's bounds are those that the TEB records.
    """

    side: Side
    frames: tuple[FrameReport, ...] = ()
    ending: str = ""
    stack_base: Hexadecimal | None = None
    stack_limit: Hexadecimal | None = None


@dataclass(frozen=True, slots=True)
class StartRoutine:
    """Where a thread started. `is_named`: the address is in a module, so that `name` is more than the address."""

    address: Hexadecimal
    name: str = ""
    is_named: bool = False


@dataclass(frozen=True, slots=True)
class ThreadWait:
    """How a thread waits, and for what. `ticks` and `seconds` say how long.

    `objects` are the kernel objects it waits for, `lock` a lock of user mode. `deadlock` says which threads form the
    cycle that it is in or waits for.
    """

    reason: str = ""
    mode: str = ""
    alertable: bool | None = None
    ticks: int | None = None
    seconds: float | None = None
    objects: tuple[str, ...] = ()
    lock: str = ""
    deadlock: str = ""


@dataclass(frozen=True, slots=True)
class ThreadStackReport:
    """A thread: what it does, and its whole stack, innermost part first."""

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
