# SPDX-License-Identifier: Apache-2.0
"""A saved exception: record, CONTEXT, by which routes they were found, and the checks that tell them from debris.

A stack is full of words that look like a CONTEXT: the dispatcher's working copy (ip 0), the context a thread was
started with, those of exceptions that were handled long ago. What passes here has the flags and selectors of user
mode, a stack pointer on this thread's stack above the record, and an ip in code, unless the fault is that it is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from throwstack.contexts import Context, read_context
from throwstack.exceptions.record import ExceptionRecord, read_record
from throwstack.frames import StackBounds
from throwstack.memory import MemoryUnreadable
from throwstack.target import Target


class Route(Enum):
    """How a saved CONTEXT was found, most telling first."""

    FILTER_ARGUMENT = "UnhandledExceptionFilter argument"
    DISPATCHER = "KiUserExceptionDispatcher frame"
    RAISE = "RtlRaiseException frame"
    HANDLER_ARGUMENTS = "ExecuteHandler arguments"
    POINTERS = "EXCEPTION_POINTERS on the stack"
    SCAN = "scan of the stack"


_ROUTE_ORDER = {route: index for index, route in enumerate(Route)}

_STATUS_ACCESS_VIOLATION = 0xC0000005
_STATUS_ILLEGAL_INSTRUCTION = 0xC000001D
_STATUS_PRIVILEGED_INSTRUCTION = 0xC0000096
_STATUS_IN_PAGE_ERROR = 0xC0000006
_JUMPED_ASTRAY = frozenset(
    {_STATUS_ACCESS_VIOLATION, _STATUS_ILLEGAL_INSTRUCTION, _STATUS_PRIVILEGED_INSTRUCTION, _STATUS_IN_PAGE_ERROR}
)


@dataclass(frozen=True, slots=True)
class SavedException:
    """An exception that was being dispatched on a thread. `frame_sp` is the stack address of the route's frame."""

    record: ExceptionRecord
    context: Context
    routes: tuple[Route, ...]
    frame_sp: int

    @property
    def found_by(self) -> str:
        """Return the routes that agree on it, best first."""
        return ", ".join(route.value for route in self.routes)


def saved_exception(
    target: Target, stack: StackBounds, record_address: int, context_address: int, *, route: Route, frame_sp: int
) -> SavedException | None:
    """Read and check a record and a CONTEXT; return None if they are not those of an exception of this thread."""
    try:
        context = read_context(target.memory, context_address, target.arch)
        if not (context.has_plausible_flags and context.has_user_selectors):
            return None
        record = read_record(target.memory, record_address, target.arch)
    except MemoryUnreadable:
        return None
    return (
        SavedException(record, context, (route,), frame_sp)
        if _belong_together(target, stack, record, context)
        else None
    )


def _belong_together(target: Target, stack: StackBounds, record: ExceptionRecord, context: Context) -> bool:
    if not record.code or not record.is_well_formed:
        return False
    sp = context.registers.sp
    on_this_stack = stack.contains(sp) or sp == stack.base
    if not on_this_stack or (stack.contains(context.address) and context.address >= sp):
        return False
    if target.arch.pointer_size == 8 and context.address & 0xF:
        return False
    ip = context.registers.ip
    if target.images.is_code(ip):
        return True
    return record.address == ip and record.code in _JUMPED_ASTRAY


def merge(found: Iterable[SavedException]) -> tuple[SavedException, ...]:
    """Join what several routes found of one exception; innermost (the latest) first."""
    by_context: dict[int, SavedException] = {}
    for item in found:
        known = by_context.get(item.context.address)
        if known is None:
            by_context[item.context.address] = item
        else:
            routes = sorted({*known.routes, *item.routes}, key=_ROUTE_ORDER.__getitem__)
            frame_sp = min(known.frame_sp, item.frame_sp)
            by_context[item.context.address] = replace(known, routes=tuple(routes), frame_sp=frame_sp)
    return tuple(sorted(by_context.values(), key=lambda item: item.context.registers.sp))
