# SPDX-License-Identifier: Apache-2.0
"""What a thread's ETHREAD tells beyond how to find its stacks: how it waits, its priority, times and start.

What a kernel's ISF has no member for, or what cannot be read, is None. States and wait reasons have the names that
KTHREAD_STATE and KWAIT_REASON give them (wdm.h, and the kernel's own symbols for the later ones).
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.volatility.memory.machine import Machine

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

_MEMBERS = {
    "state": "Tcb.State",
    "wait_reason": "Tcb.WaitReason",
    "wait_mode": "Tcb.WaitMode",
    "alertable": "Tcb.Alertable",
    "priority": "Tcb.Priority",
    "base_priority": "Tcb.BasePriority",
    "priority_decrement": "Tcb.PriorityDecrement",
    "kernel_ticks": "Tcb.KernelTime",
    "user_ticks": "Tcb.UserTime",
    "context_switches": "Tcb.ContextSwitches",
    "suspend_count": "Tcb.SuspendCount",
    "freeze_count": "Tcb.FreezeCount",
    "is_resident": "Tcb.KernelStackResident",
    "large_stack": "Tcb.LargeStack",
    "stack_base": "Tcb.StackBase",
    "stack_limit": "Tcb.StackLimit",
    "win32_thread": "Tcb.Win32Thread",
    "start": "StartAddress",
    "win32_start": "Win32StartAddress",
}


@dataclass(frozen=True, slots=True)
class ThreadFacts:
    """Members of an ETHREAD. Times are in clock ticks; priorities are signed."""

    state: int | None
    wait_reason: int | None
    wait_mode: int | None
    alertable: int | None
    priority: int | None
    base_priority: int | None
    priority_decrement: int | None
    kernel_ticks: int | None
    user_ticks: int | None
    context_switches: int | None
    suspend_count: int | None
    freeze_count: int | None
    """Not 0 while the process is frozen, as it is when the kernel reports a crash of it."""
    is_resident: int | None
    large_stack: int | None
    stack_base: int | None
    stack_limit: int | None
    win32_thread: int | None
    start: int | None
    win32_start: int | None

    @property
    def is_waiting(self) -> bool:
        """Say whether the thread waits for something, so that how it waits means something."""
        return self.state in {WAITING, GATE_WAIT}

    @property
    def is_running(self) -> bool:
        """Say whether a processor ran the thread when the dump was made."""
        return self.state == RUNNING

    @property
    def state_name(self) -> str:
        """Return the state's name, or its number where that is no state."""
        return _name(STATES, self.state)

    @property
    def wait_reason_name(self) -> str:
        """Return the wait reason's name, or its number where that is none."""
        return _name(WAIT_REASONS, self.wait_reason)

    @property
    def wait_mode_name(self) -> str:
        """Return KernelMode or UserMode: on whose behalf the thread waits."""
        return _name(_MODES, self.wait_mode)


NOTHING_KNOWN = ThreadFacts(**dict.fromkeys(_MEMBERS))
"""The facts of a thread that cannot be read."""


def _name(names: tuple[str, ...], value: int | None) -> str:
    if value is None:
        return ""
    return names[value] if value < len(names) else f"unknown ({value})"


class ThreadFactsReader:
    """Reads the facts of threads; the offsets are looked up once."""

    def __init__(self, machine: Machine) -> None:
        """Take offsets from the layout of `machine`."""
        self._memory = machine.memory
        self._members = {name: machine.layout.member(f"_ETHREAD.{path}") for name, path in _MEMBERS.items()}

    def read(self, thread: int) -> ThreadFacts:
        """Return the facts of the ETHREAD at `thread`."""
        values = {name: self._value(thread, name) for name in _MEMBERS}
        for name in ("priority", "base_priority"):
            values[name] = _signed(values[name])
        return ThreadFacts(**values)

    def _value(self, thread: int, name: str) -> int | None:
        member = self._members[name]
        if member is None:
            return None
        try:
            return member.read(self._memory, thread)
        except MemoryUnreadable:
            return None


def _signed(value: int | None) -> int | None:
    """Return a byte as the CHAR it is, whatever the ISF's compiler made of CHAR."""
    return value if value is None or value < 0x80 else value - 0x100
