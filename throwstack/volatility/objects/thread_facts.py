# SPDX-License-Identifier: Apache-2.0
"""Reads facts about a thread from its ETHREAD: how it waits, its priority, its times, and where it started.

A value is None if the kernel's ISF table lacks the member, or if the member cannot be read. States and wait reasons
have the names of KTHREAD_STATE and KWAIT_REASON (in wdm.h; the newer ones are in the kernel's own symbols).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from throwstack.core.memory import MemoryUnreadable
from throwstack.volatility.memory.layout import Member
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import look_up, member

STATES = (
    *("Initialized", "Ready", "Running", "Standby", "Terminated", "Waiting"),
    *("Transition", "DeferredReady", "GateWait", "WaitingForProcessInSwap"),
)
WAIT_REASONS = (
    *("Executive", "FreePage", "PageIn", "PoolAllocation", "DelayExecution", "Suspended", "UserRequest"),
    *("WrExecutive", "WrFreePage", "WrPageIn", "WrPoolAllocation", "WrDelayExecution", "WrSuspended", "WrUserRequest"),
    *("WrEventPair", "WrQueue", "WrLpcReceive", "WrLpcReply", "WrVirtualMemory", "WrPageOut", "WrRendezvous"),
    *("WrKeyedEvent", "WrTerminated", "WrProcessInSwap", "WrCpuRateControl", "WrCalloutStack", "WrKernel"),
    *("WrResource", "WrPushLock", "WrMutex", "WrQuantumEnd", "WrDispatchInt", "WrPreempted", "WrYieldExecution"),
    *("WrFastMutex", "WrGuardedMutex", "WrRundown", "WrAlertByThreadId", "WrDeferredPreempt", "WrPhysicalFault"),
    *("WrIoRing", "WrMdlCache", "WrRcu"),
)
RUNNING, WAITING, GATE_WAIT = 2, 5, 8
_MODES = ("KernelMode", "UserMode")


@dataclass(frozen=True, slots=True)
class ThreadFacts:
    """Values of members of an ETHREAD. Times are in clock ticks; priorities are signed."""

    state: int | None = member("_ETHREAD.Tcb.State", optional=True)
    wait_reason: int | None = member("_ETHREAD.Tcb.WaitReason", optional=True)
    wait_mode: int | None = member("_ETHREAD.Tcb.WaitMode", optional=True)
    alertable: int | None = member("_ETHREAD.Tcb.Alertable", optional=True)
    priority: int | None = member("_ETHREAD.Tcb.Priority", optional=True)
    base_priority: int | None = member("_ETHREAD.Tcb.BasePriority", optional=True)
    priority_decrement: int | None = member("_ETHREAD.Tcb.PriorityDecrement", optional=True)
    kernel_ticks: int | None = member("_ETHREAD.Tcb.KernelTime", optional=True)
    user_ticks: int | None = member("_ETHREAD.Tcb.UserTime", optional=True)
    context_switches: int | None = member("_ETHREAD.Tcb.ContextSwitches", optional=True)
    suspend_count: int | None = member("_ETHREAD.Tcb.SuspendCount", optional=True)
    freeze_count: int | None = member("_ETHREAD.Tcb.FreezeCount", optional=True)
    """Not 0 while the process is frozen. The kernel freezes a process while it reports a crash of the process."""
    is_resident: int | None = member("_ETHREAD.Tcb.KernelStackResident", optional=True)
    large_stack: int | None = member("_ETHREAD.Tcb.LargeStack", optional=True)
    stack_base: int | None = member("_ETHREAD.Tcb.StackBase", optional=True)
    stack_limit: int | None = member("_ETHREAD.Tcb.StackLimit", optional=True)
    win32_thread: int | None = member("_ETHREAD.Tcb.Win32Thread", optional=True)
    start: int | None = member("_ETHREAD.StartAddress", optional=True)
    win32_start: int | None = member("_ETHREAD.Win32StartAddress", optional=True)

    @property
    def is_waiting(self) -> bool:
        """Say whether the thread waits. If it does not, its members about waiting are left from an earlier wait."""
        return self.state in {WAITING, GATE_WAIT}

    @property
    def is_running(self) -> bool:
        """Say whether a processor ran the thread when the dump was made."""
        return self.state == RUNNING

    @property
    def state_name(self) -> str:
        """Return the name of the state, `unknown (n)` for a number without a name, or "" if it cannot be read."""
        return _name(STATES, self.state)

    @property
    def wait_reason_name(self) -> str:
        """Return the name of the wait reason, `unknown (n)` for a number without a name, or "" if it cannot be read."""
        return _name(WAIT_REASONS, self.wait_reason)

    @property
    def wait_mode_name(self) -> str:
        """Return KernelMode or UserMode, the mode on whose behalf the thread waits; "" if it cannot be read."""
        return _name(_MODES, self.wait_mode)


NOTHING_KNOWN = ThreadFacts(**dict.fromkeys(one.name for one in fields(ThreadFacts)))
"""The facts of a thread that cannot be read."""


def _name(names: tuple[str, ...], value: int | None) -> str:
    if value is None:
        return ""
    return names[value] if value < len(names) else f"unknown ({value})"


class ThreadFactsReader:
    """Reads the facts of a machine's threads."""

    def __init__(self, machine: Machine) -> None:
        """Look up the members of an ETHREAD in the symbols of `machine`."""
        self._memory = machine.memory
        self._members: dict[str, Member | None] = look_up(ThreadFacts, machine.layout)

    def read(self, thread: int) -> ThreadFacts:
        """Return the facts of the ETHREAD at `thread`."""
        values = {name: self._value(thread, member) for name, member in self._members.items()}
        for name in ("priority", "base_priority"):
            values[name] = _signed(values[name])
        return ThreadFacts(**values)

    def _value(self, thread: int, member: Member | None) -> int | None:
        if member is None:
            return None
        try:
            return member.read(self._memory, thread)
        except MemoryUnreadable:
            return None


def _signed(value: int | None) -> int | None:
    """Return a byte as a signed CHAR. Some ISF files declare priorities as signed, some as unsigned."""
    return value if value is None or value < 0x80 else value - 0x100
