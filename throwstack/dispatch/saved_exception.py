# SPDX-License-Identifier: Apache-2.0
"""A saved exception: its record, its CONTEXT, the routes by which they were found, and the checks that both must pass.

Not everything on a stack that looks like a CONTEXT belongs to an exception. RtlDispatchException has a working copy,
whose ip is 0. The first page of a stack may hold the CONTEXT with which the thread was started. Exceptions that were
handled leave their CONTEXT where it was.

A CONTEXT passes the checks if it has the flags and selectors of user mode, a stack pointer on this thread's stack that
is above the CONTEXT, and an ip in code. The ip may be outside code if jumping there was the fault. The checks do not
decide whether the exception is still in flight: `throwstack.dispatch.stale_contexts` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from throwstack.core.contexts import Context, read_context
from throwstack.core.exception_record import ExceptionRecord, read_record
from throwstack.core.frames import StackBounds
from throwstack.core.memory import MemoryUnreadable
from throwstack.dispatch.raisers import captures_itself, is_fail_fast_of_clr, is_in_raiser, is_plausible_record
from throwstack.unwind.target import Target


class Route(Enum):
    """The ways in which a saved CONTEXT can be found (routes), the most reliable first."""

    FAST_FAIL = "int 29h in the trap frame"
    KERNEL_STACK = "record on the kernel stack"
    FILTER_ARGUMENT = "UnhandledExceptionFilter argument"
    DISPATCHER = "KiUserExceptionDispatcher frame"
    RAISE = "RtlRaiseException frame"
    FAIL_FAST_FRAME = "RaiseFailFastException frame"
    REGISTRATION = "nested registration of ExecuteHandler"
    HANDLER_ARGUMENTS = "ExecuteHandler arguments"
    GLOBALS = "GS_ContextRecord of the module"
    REGISTER = "nonvolatile register"
    POINTERS = "EXCEPTION_POINTERS on the stack"
    SCAN = "scan of the stack"


_ROUTE_ORDER = {route: index for index, route in enumerate(Route)}
_ALONE_NOT_ENOUGH = frozenset({Route.HANDLER_ARGUMENTS, Route.REGISTER, Route.POINTERS, Route.SCAN})
"""Routes that start from words that may only look like pointers.

Exceptions found by them are accepted only if record and CONTEXT have the same instruction address, or if they are two
adjacent pointers (below).
"""
_ADJACENT_POINTERS = frozenset({Route.REGISTER, Route.POINTERS})
"""Routes by which a record and a CONTEXT with different instruction addresses are accepted as well.

This is so only if the CONTEXT's ip is in a function that raises exceptions, or in a runtime of .NET that ends its
process (`throwstack.dispatch.raisers`).
"""
_MAX_OWN_FRAME = 0x1000

_STATUS_ACCESS_VIOLATION = 0xC0000005
_STATUS_ILLEGAL_INSTRUCTION = 0xC000001D
_STATUS_PRIVILEGED_INSTRUCTION = 0xC0000096
_STATUS_IN_PAGE_ERROR = 0xC0000006
_CODES_OF_BAD_JUMPS = frozenset(
    {_STATUS_ACCESS_VIOLATION, _STATUS_ILLEGAL_INSTRUCTION, _STATUS_PRIVILEGED_INSTRUCTION, _STATUS_IN_PAGE_ERROR}
)


@dataclass(frozen=True, slots=True)
class SavedException:
    """An exception whose record and CONTEXT were found on a thread.

    `routes` are the routes by which the exception was found, best first. `frame_sp` is the stack address of the frame
    (or registration or pointer) from which it was found, the lowest if there are several. `disagreement` says what
    another route found instead. It is "" if all routes found the same.
    """

    record: ExceptionRecord
    context: Context
    routes: tuple[Route, ...]
    frame_sp: int
    disagreement: str = ""

    @property
    def found_by(self) -> str:
        """Return the routes by which the exception was found, in words, best first."""
        return ", ".join(route.value for route in self.routes)

    @property
    def where(self) -> str:
        """Return in words where the exception's CONTEXT is."""
        return f"context {self.context.address:#x}" if self.context.address else "no CONTEXT record"

    @property
    def is_in_own_frame(self) -> bool:
        """Say whether the CONTEXT is in the frame whose state it has: a function captured itself."""
        return self.frame_sp == self.context.registers.sp <= self.context.address

    @property
    def key(self) -> tuple[int, int]:
        """Return ip and sp at the throw, which are different for each exception in flight on one stack.

        The address of the CONTEXT cannot serve as a key, because one exception may have several CONTEXTs. Example: if a
        debugger is attached, RtlRaiseException asks the kernel to dispatch. The kernel then copies the CONTEXT that it
        is given to the frame of KiUserExceptionDispatcher.
        """
        return self.context.registers.ip, self.context.registers.sp


def saved_exception(
    target: Target, stack: StackBounds, record_address: int, context_address: int, *, route: Route, frame_sp: int
) -> SavedException | None:
    """Read a record and a CONTEXT, and return them as an exception of this thread; None if they do not pass the checks.

    `record_address` and `context_address` say where they are. `route` and `frame_sp` are put into the result. Each call
    takes one unit from the budget of checks. Once that is spent, the result is None.
    """
    if not target.meter.take(target.meter.budgets.checks):
        return None
    try:
        context = read_context(target.memory, context_address, target.arch)
        if not (context.has_plausible_flags and context.has_user_selectors):
            return None
        record = read_record(target.memory, record_address, target.arch)
    except MemoryUnreadable:
        return None
    is_one_place = record.address == context.registers.ip or route not in _ALONE_NOT_ENOUGH
    if not (is_one_place or route in _ADJACENT_POINTERS) or not _is_plausible_pair(target, stack, record, context):
        return None
    if is_one_place or is_raised_anew(target, record, context):
        return SavedException(record, context, (route,), frame_sp)
    return None


def is_raised_anew(target: Target, record: ExceptionRecord, context: Context) -> bool:
    """Say whether `record` and `context`, whose instruction addresses differ, can be of one exception.

    `throwstack.dispatch.raisers` says when this is so.
    """
    ip = context.registers.ip
    return is_fail_fast_of_clr(target, record, ip) or (is_plausible_record(target, record) and is_in_raiser(target, ip))


def _is_plausible_pair(target: Target, stack: StackBounds, record: ExceptionRecord, context: Context) -> bool:
    if (
        not record.code
        or not record.is_well_formed
        or context.address <= record.location < context.address + target.arch.facts.context_size
    ):
        return False
    sp = context.registers.sp
    if not (stack.contains(sp) or sp == stack.base):
        return False
    if stack.contains(context.address) and context.address >= sp and not _is_in_raisers_frame(target, record, context):
        return False
    if target.arch.pointer_size == 8 and context.address & 0xF:
        return False
    ip = context.registers.ip
    if target.is_code(ip):
        return True
    # The ip is in no code that is known. Either the code was made at run time: it can be read, and may fault so. Or
    # the program jumped through a bad pointer: then the jump is the fault.
    return record.address == ip and (record.code in _CODES_OF_BAD_JUMPS or bool(ip and target.memory.is_readable(ip)))


def _is_in_raisers_frame(target: Target, record: ExceptionRecord, context: Context) -> bool:
    """Say whether `context` is in the frame of the function whose state it has, as that of RtlRaiseStatus is on x64."""
    registers = context.registers
    if context.address - registers.sp >= _MAX_OWN_FRAME:
        return False
    return captures_itself(target, registers.ip) or is_fail_fast_of_clr(target, record, registers.ip)


def merge(found: Iterable[SavedException]) -> tuple[SavedException, ...]:
    """Return each exception of `found` once, with all routes by which it was found.

    The exceptions are ordered from the innermost (latest) to the outermost.

    If one exception has several CONTEXTs, the CONTEXT found by the most reliable route is taken.
    """
    by_throw: dict[tuple[int, int], SavedException] = {}
    for item in found:
        known = by_throw.get(item.key)
        if known is None:
            by_throw[item.key] = item
        else:
            routes = sorted({*known.routes, *item.routes}, key=_ROUTE_ORDER.__getitem__)
            best = min(known, item, key=rank)
            by_throw[item.key] = replace(best, routes=tuple(routes), frame_sp=min(known.frame_sp, item.frame_sp))
    return tuple(sorted(by_throw.values(), key=lambda item: item.context.registers.sp))


def rank(item: SavedException) -> int:
    """Return the rank of the most reliable route of `item`. A lower rank is better, and the best rank is 0."""
    return min(_ROUTE_ORDER[route] for route in item.routes)
