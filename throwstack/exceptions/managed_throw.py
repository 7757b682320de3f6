# SPDX-License-Identifier: Apache-2.0
"""Finds the exception object of .NET that belongs to a raised exception.

A thread may have several objects: that of the exception that ends it, that of an exception whose catch block threw
anew, and leftovers of exceptions that were handled. The object's own stack tells which is which. While an exception is
dispatched, the runtime records each frame that it passes in the object, with ip and sp. So an object belongs to a throw
if the innermost managed frame of the stack that threw is among its frames. A stub, through which managed code calls
native code, is recorded without ip; the frame outside it counts then. Example: a catch block throws. Both objects
have the frame of the method with the catch block; only the second has the frame of the method that it called.

Objects that are looked at: those that the runtime's Thread keeps, the last thrown first, and if none of these is the
right one, those to which words of the stack point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from throwstack.core.frames import Frame, StackBounds, Walk
from throwstack.dispatch.saved_exception import SavedException
from throwstack.exceptions.clr import CLR, CLR_OLD
from throwstack.exceptions.model import ManagedThrow
from throwstack.managed.managed_exception import ManagedException
from throwstack.managed.process_code import DYNAMIC, ManagedCode
from throwstack.names.frame_names import name_of
from throwstack.names.symbols import SymbolKind, Symbols

_BY_HRESULT = (
    "that this object was thrown follows from the thread and the HRESULT alone: it has recorded no frame of this stack"
)
_NOT_TIED = "the thread's last thrown object is of another exception"
_MAX_STUBS = 4
_MAX_ALIKE = 1
"""A recorded ip is the return address, or one byte less."""


@dataclass(frozen=True, slots=True)
class ManagedThread:
    """A thread of a process that may have managed code: its id, and the bounds of its stack."""

    code: ManagedCode
    symbols: Symbols
    tid: int
    stack: StackBounds


def managed_throw(
    thread: ManagedThread, exception: SavedException, walk: Walk, *, is_innermost: bool
) -> ManagedThrow | None:
    """Return what the runtime says of `exception`, which was raised on `thread`; None without a runtime.

    `walk` is the stack that threw. `is_innermost` says that no other exception was raised on the thread later.
    """
    code, symbols, stack = thread.code, thread.symbols, thread.stack
    runtime = code.runtime
    if runtime is None:
        return None
    is_managed = exception.record.code in {CLR, CLR_OLD}
    throwers = innermost_managed(symbols, walk.frames)
    if not is_managed and not throwers:
        return None
    last, reason = code.last_thrown(thread.tid)

    def of(found: ManagedException, tie: str = "") -> ManagedThrow:
        return ManagedThrow(found, "", tie, runtime.version, runtime.is_experimental)

    for thrower in throwers:
        kept = code.exceptions_in_flight(thread.tid)
        by_runtime = next((found for found in kept if has_passed(found, thrower)), None)
        if by_runtime is not None:
            return of(by_runtime)
        low = max(stack.limit, min(exception.frame_sp, exception.context.registers.sp))
        for found in code.exceptions_on_stack(low, stack.base):
            if has_passed(found, thrower):
                return of(found)
    if last is not None and is_managed and is_innermost and _has_hresult(last, exception):
        return of(last, _BY_HRESULT if last.stack and throwers else "")
    return ManagedThrow(None, reason or _NOT_TIED, "", runtime.version, runtime.is_experimental) if is_managed else None


def innermost_managed(symbols: Symbols, frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """Return the innermost managed frame; if that is of a stub, also the next ones, up to the first that is not."""
    found: list[Frame] = []
    for frame in frames:
        name = name_of(symbols, frame)
        if name.kind is SymbolKind.CLR:
            found.append(frame)
            if name.module != DYNAMIC or len(found) == _MAX_STUBS:
                break
    return tuple(found)


def has_passed(found: ManagedException, frame: Frame) -> bool:
    """Say whether the dispatch of the exception object `found` has passed `frame`: the object has recorded it."""
    return any(0 <= frame.ip - item.ip <= _MAX_ALIKE and item.sp == frame.sp for item in found.stack)


def _has_hresult(found: ManagedException, exception: SavedException) -> bool:
    parameters = exception.record.parameters
    return not parameters or found.hresult is None or found.hresult == parameters[0] & 0xFFFFFFFF
