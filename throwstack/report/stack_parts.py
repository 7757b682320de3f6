# SPDX-License-Identifier: Apache-2.0
"""Parts of the reports on threads: a part of a thread's stack, how the thread waits, and what its ETHREAD says of it.

As in `throwstack.report.crash_report`, they consist of plain values, every string is escaped, and values that are not
known are absent.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.sides import Side
from throwstack.report.frame_report import FrameReport
from throwstack.report.values import Hexadecimal


@dataclass(frozen=True, slots=True)
class StackPartReport:
    """The frames of a thread in the kernel, in native user-mode code, or in 32-bit code of a WoW64 process.

    The innermost frame is first. `ending` says why the frames end early, and is empty if they do not. `stack_base` and
    `stack_limit` are the bounds in the TEB.
    """

    side: Side
    frames: tuple[FrameReport, ...] = ()
    ending: str = ""
    stack_base: Hexadecimal | None = None
    stack_limit: Hexadecimal | None = None


@dataclass(frozen=True, slots=True)
class StackExtent:
    """The bounds of a user-mode stack: from `limit`, its lowest committed address, up to `base`."""

    base: Hexadecimal
    limit: Hexadecimal


@dataclass(frozen=True, slots=True)
class StartRoutine:
    """The address at which a thread started, and its name.

    `is_named` is true if the address is in a module; otherwise `name` is only the address.
    """

    address: Hexadecimal
    name: str = ""
    is_named: bool = False


@dataclass(frozen=True, slots=True)
class ThreadWait:
    """How a thread waits, how long it has waited (`ticks` and `seconds`), and what for.

    `objects` are the kernel objects that it waits for, and `lock` is a user-mode lock. `deadlock` names the threads of
    the cycle of waits that the thread is in or waits behind.
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
class ThreadFigures:
    """What the ETHREAD of a stuck thread says of it, as `!thread` prints it.

    `start` is where the kernel started the thread, and `win32_start` is the routine that the program gave. The
    addresses `kernel_stack_…` are those of the thread's kernel stack.
    """

    state: str = ""
    teb: Hexadecimal | None = None
    win32_thread: Hexadecimal | None = None
    start: StartRoutine | None = None
    win32_start: StartRoutine | None = None
    priority: int | None = None
    base_priority: int | None = None
    priority_decrement: int | None = None
    context_switches: int | None = None
    suspend_count: int | None = None
    freeze_count: int | None = None
    kernel_seconds: float | None = None
    user_seconds: float | None = None
    kernel_stack_init: Hexadecimal | None = None
    kernel_stack_current: Hexadecimal | None = None
    kernel_stack_base: Hexadecimal | None = None
    kernel_stack_limit: Hexadecimal | None = None
    has_large_stack: bool | None = None
