# SPDX-License-Identifier: Apache-2.0
"""Finds saved CONTEXTs on x64, in the frames of KiUserExceptionDispatcher and of RtlRaiseException.

UnhandledExceptionFilter's argument is in rcx, which is overwritten soon. But the record and CONTEXT to which it led are
in frames further out:

- The kernel delivers a fault by building, at rsp of KiUserExceptionDispatcher, a CONTEXT (0x4d0 bytes), a CONTEXT_EX,
  and the EXCEPTION_RECORD at +0x4f0.
- RtlRaiseException captures a CONTEXT in its own frame. The record is in the frame of its caller, or, under
  RtlRaiseStatus, in that function's own frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from throwstack.core.contexts import read_context
from throwstack.core.exception_record import read_record
from throwstack.core.frames import Frame, StackBounds
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import X64, Arch
from throwstack.dispatch.saved_exception import Route, SavedException, saved_exception
from throwstack.unwind.target import Target

_RECORD_AFTER_CONTEXT = (0x4F0, 0x4D0, *range(0x4D8, 0x4F0, 8), *range(0x4F8, 0x640, 8))
"""Distances in bytes from the start of the CONTEXT to the record, in the order in which they are tried.

The record is after a CONTEXT_EX of 0x20 bytes, or (before Windows 7) right after the CONTEXT. Versions of Wine put
other things between the two."""
_MAX_FRAME = 0x10000
_ADDRESS_IN_RECORD = 0x10
_MAX_FLAGS = 0xFF
"""The largest flags of a record: any of EXCEPTION_NONCONTINUABLE (1) to EXCEPTION_SOFTWARE_ORIGINATE (0x80)."""


def from_dispatcher_frame(target: Target, stack: StackBounds, frame: Frame) -> SavedException | None:
    """Return the exception whose CONTEXT is at rsp of the KiUserExceptionDispatcher frame `frame`, or None."""
    for distance in _RECORD_AFTER_CONTEXT:
        found = saved_exception(
            target, stack, frame.child_sp + distance, frame.child_sp, route=Route.DISPATCHER, frame_sp=frame.child_sp
        )
        if found is not None and _same_address(found):
            return found
    return None


def from_raise_frame(target: Target, stack: StackBounds, frame: Frame, caller: Frame) -> SavedException | None:
    """Return the exception whose CONTEXT the RtlRaiseException frame `frame` captured, or None.

    `caller` is the frame that called it. The CONTEXT has the caller's state: its rip is the return address of `frame`,
    and its rsp is that of the caller. The caller has built the record, mostly in its own frame.
    """
    context_address = _context_in(target, frame, caller)
    if context_address is None or frame.return_address is None:
        return None
    in_caller = records_naming(target, stack, frame.return_address, caller.child_sp, _MAX_FRAME)
    in_frame = records_naming(target, stack, frame.return_address, frame.child_sp, caller.child_sp - frame.child_sp)
    for record_address in chain(in_caller, in_frame):
        found = saved_exception(
            target, stack, record_address, context_address, route=Route.RAISE, frame_sp=frame.child_sp
        )
        if found is not None:
            return found
    return None


def records_naming(target: Target, stack: StackBounds, ip: int, low: int, size: int) -> Iterator[int]:
    """Yield the stack addresses at which there may be a record whose ExceptionAddress is `ip`.

    The `size` bytes from the stack address `low` on are searched.
    """
    low = (max(low, stack.limit) + 7) & -8
    data = target.memory.read_available(low, min(size, stack.base - low))
    wanted = ip.to_bytes(8, "little")
    position = data.find(wanted, _ADDRESS_IN_RECORD)
    while position >= 0 and target.meter.take(target.meter.budgets.checks):
        at = low + position - _ADDRESS_IN_RECORD
        if at % 8 == 0 and _is_record(target, at):
            yield at
        position = data.find(wanted, position + 1)


def _is_record(target: Target, address: int) -> bool:
    try:
        record = read_record(target.memory, address, Arch.X64)
    except MemoryUnreadable:
        return False
    return bool(record.code) and record.is_well_formed and record.flags <= _MAX_FLAGS


def _context_in(target: Target, frame: Frame, caller: Frame) -> int | None:
    start, end = (frame.child_sp + 15) & -16, min(caller.child_sp, frame.child_sp + _MAX_FRAME)
    for address in range(start, end - X64.context_size + 1, 16):
        if not target.meter.take(target.meter.budgets.checks):
            return None
        try:
            context = read_context(target.memory, address, Arch.X64)
        except MemoryUnreadable:
            return None
        is_callers = context.registers.ip == frame.return_address and context.registers.sp == caller.child_sp
        if is_callers and context.has_plausible_flags:
            return address
    return None


def _same_address(found: SavedException) -> bool:
    return found.record.address == found.context.registers.ip
