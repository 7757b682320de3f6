# SPDX-License-Identifier: Apache-2.0
"""Finds the exception object of .NET that belongs to a raised exception.

A thread may have several objects: that of the exception that ends it, that of an exception whose catch block threw
anew, and leftovers of exceptions that were handled. The object's own stack tells which is which. While an exception is
dispatched, the runtime records each frame that it passes in the object, with ip and sp. So an object belongs to a throw
if the innermost managed frame of the stack that threw is among its frames. A stub, through which managed code calls
native code, is recorded without ip; the frame outside it counts then. Example: a catch block throws. Both objects
have the frame of the method with the catch block; only the second has the frame of the method that it called.

Objects that are looked at: those that the runtime's Thread keeps, the last thrown first, and for an exception further
out, if none of these is the right one, those to which words of the stack point.

A recorded frame alone does not tie an object to a fault. Example: a loop calls native code. In its first round a
callback throws, which is caught, and a local variable keeps the object. In the second round the native code faults. The
call has the same ip and sp in both rounds. So the object of a fault has to be of the class that the runtime makes of
the record's code, and leads only if the fault was in managed code or in the runtime's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import Frame, StackBounds, Trust, Walk
from throwstack.core.text import escape
from throwstack.dispatch.raisers import is_raiser
from throwstack.dispatch.saved_exception import SavedException
from throwstack.exceptions.clr import CLR, CLR_OLD, FAIL_FAST
from throwstack.exceptions.model import ManagedThrow
from throwstack.managed.process_code import DYNAMIC, ManagedCode
from throwstack.managed.runtime_module import is_runtime
from throwstack.names.frame_names import name_of
from throwstack.names.symbols import SymbolKind, Symbols

if TYPE_CHECKING:
    from throwstack.managed.managed_exception import ManagedException

_BY_HRESULT = (
    "that this object was thrown follows from the thread and the HRESULT alone: it has recorded no frame of this stack"
)
_ENVIRONMENT = "System.Environment."
_NO_RUNTIME = "no image of the process is a .NET runtime"
_NOT_TIED = "the thread's last thrown object is of another exception"
_SEVERAL = "several objects on the stack have recorded the frame that threw; the one nearest to the top was taken"
_BEYOND = "managed frames of this stack have no names, and what is known of it fits an exception raised later as well"
_NAMELESS = "the managed frames of this stack have no names"
_OTHER_CLASS = ("System.Runtime.InteropServices.SEHException",)
_ARITHMETIC, _OVERFLOW = ("System.ArithmeticException",), ("System.OverflowException",)
_DIVISION = ("System.DivideByZeroException",)
_CLASSES: dict[int, tuple[str, ...]] = {
    0x80000002: ("System.DataMisalignedException",),
    0xC0000005: ("System.NullReferenceException", "System.AccessViolationException"),
    0xC0000006: ("System.NullReferenceException", "System.AccessViolationException", *_OTHER_CLASS),
    0xC0000017: ("System.OutOfMemoryException",),
    0xC000008C: ("System.IndexOutOfRangeException",),
    0xC000008D: ("System.FormatException",),
    0xC000008E: _DIVISION,
    0xC000008F: _ARITHMETIC,
    0xC0000090: _ARITHMETIC,
    0xC0000091: _OVERFLOW,
    0xC0000092: _ARITHMETIC,
    0xC0000093: _ARITHMETIC,
    0xC0000094: _DIVISION,
    0xC0000095: _OVERFLOW,
    0xC00000FD: ("System.StackOverflowException",),
}
"""The classes that the runtime makes of a fault, by the record's code (rexcep.h, MapWin32FaultToCOMPlusException)."""
_MAX_STUBS, _MAX_LOST = 4, 16
_RAISED_BY = 4
"""Which parameter of a CLR exception is the base of the runtime that raised it."""
_MAX_ALIKE = 1
"""A recorded ip is the return address, or one byte less."""


@dataclass(frozen=True, slots=True)
class ManagedThread:
    """A thread of a process that may have managed code: its id, and the bounds of its stack."""

    code: ManagedCode
    symbols: Symbols
    tid: int
    stack: StackBounds


def may_be_managed(code: ManagedCode, record: ExceptionRecord) -> bool:
    """Say whether `managed_throw` may have something to say of the exception.

    It has nothing to say of native exceptions of a process in which there is no runtime, and none that may be hidden.
    """
    return code.runtime is not None or record.code in {CLR, CLR_OLD} or bool(code.why_overlooked)


def managed_throw(
    thread: ManagedThread, exception: SavedException, walk: Walk, *, is_innermost: bool
) -> ManagedThrow | None:
    """Return what the runtime says of `exception`, which was raised on `thread`; None if it is no affair of a runtime.

    `walk` is the stack that threw. `is_innermost` says that no other exception was raised on the thread later.
    """
    code, symbols, stack = thread.code, thread.symbols, thread.stack
    runtime = code.runtime
    if runtime is None:
        return _without_runtime(thread, exception, walk)
    other = _other_runtime(code, exception.record)
    if other:
        return ManagedThrow(None, f"another runtime of the process raised it, {other}, of which nothing is read")
    plain = ManagedThrow(None, "", "", runtime.version, runtime.is_experimental)
    throwers = innermost_managed(symbols, walk.frames)
    if exception.record.code == FAIL_FAST:
        high = min(_end_of_environment(thread, walk.frames), stack.base)
        return replace(plain, given=code.fail_fast_arguments(exception.context.registers.sp, high))
    if exception.record.code in {CLR, CLR_OLD}:
        found: ManagedThrow | None = _of_throw(thread, exception, throwers, plain, is_innermost=is_innermost)
    elif any(not _has_lost_name(thread, frame) for frame in throwers):
        is_cause = _is_of_managed_code(thread, exception, walk)
        found = _of_fault(thread, exception, throwers, replace(plain, is_cause=is_cause), is_innermost=is_innermost)
    else:
        return replace(plain, reason=_NAMELESS) if throwers else None
    if found is None or found.exception is None or is_innermost:
        return found
    is_whole = all(has_passed(found.exception, frame) for frame in throwers if _has_lost_name(thread, frame))
    return found if is_whole else replace(plain, reason=_BEYOND)


def _other_runtime(code: ManagedCode, record: ExceptionRecord) -> str:
    """Return the file name of the runtime that raised a CLR exception, if it is another one than that which is read.

    A process may have several: .NET that loads a COM server written for .NET Framework. The last of the five parameters
    is the base of the runtime that raised the exception (dotnet/runtime, excep.cpp, MarkAsThrownByUs).
    """
    if record.code != CLR or len(record.parameters) <= _RAISED_BY:
        return ""
    image = code.image_at(record.parameters[_RAISED_BY])
    if image is None or code.is_in_runtime(image.base) or not is_runtime(image):
        return ""
    return escape(image.module.name)


def _has_lost_name(thread: ManagedThread, frame: Frame) -> bool:
    """Say whether a managed frame, or what may be one, has no name because a part of memory is absent or damaged."""
    name = name_of(thread.symbols, frame)
    return not name.symbol and bool(name.reason)


def _end_of_environment(thread: ManagedThread, frames: Sequence[Frame]) -> int:
    """Return the stack pointer of the innermost managed frame that may be of no method of System.Environment.

    Such a frame has strings of its own. Where names are lost, it is that of the first frame that may be managed; the
    innermost one is of what raises.
    """
    for frame in frames[1:]:
        name = name_of(thread.symbols, frame)
        is_lost = not name.symbol and (bool(name.reason) or thread.code.image_at(frame.ip) is None)
        is_other = name.kind is SymbolKind.CLR and name.module != DYNAMIC and not name.symbol.startswith(_ENVIRONMENT)
        if is_lost or is_other:
            return frame.sp
    return frames[-1].sp


def _without_runtime(thread: ManagedThread, exception: SavedException, walk: Walk) -> ManagedThrow | None:
    """Return why the runtime that raised the exception was not found; None if nothing tells that there is one.

    Two things tell it: a code that only runtimes raise, and, where the process may have a runtime that cannot be found,
    code outside all images on the stack that threw, which is where a JIT compiler puts its code.
    """
    code, why = exception.record.code, thread.code.why_overlooked
    if code in {CLR, CLR_OLD}:
        return ManagedThrow(None, why or _NO_RUNTIME)
    places = [frame.ip for frame in walk.frames if frame.trust is not Trust.SCAN]
    is_outside = any(map(thread.code.is_code_outside, (exception.record.address, *places)))
    return ManagedThrow(None, why) if why and (code == FAIL_FAST or is_outside) else None


def _of_throw(
    thread: ManagedThread,
    exception: SavedException,
    throwers: Sequence[Frame],
    plain: ManagedThrow,
    *,
    is_innermost: bool,
) -> ManagedThrow:
    found, tie = _recorded(thread, exception, throwers, is_innermost=is_innermost)
    if found is not None:
        return replace(plain, exception=found, tie=tie)
    last, reason = thread.code.last_thrown(thread.tid)
    if last is not None and is_innermost and _has_hresult(last, exception):
        return replace(plain, exception=last, tie=_BY_HRESULT if throwers else "")
    return replace(plain, reason=reason or _NOT_TIED)


def _of_fault(
    thread: ManagedThread,
    exception: SavedException,
    throwers: Sequence[Frame],
    plain: ManagedThrow,
    *,
    is_innermost: bool,
) -> ManagedThrow | None:
    """Return what managed code sees of a fault: an object that has recorded it, or one that is new.

    Without an object: the reason, if the fault was in managed code or in the runtime's own, else None.
    """
    may_search = plain.is_cause and not is_innermost
    found, tie = _recorded(thread, exception, throwers, is_innermost=not may_search)
    if found is not None:
        return replace(plain, exception=found, tie=tie)
    if is_innermost:
        for kept in thread.code.exceptions_in_flight(thread.tid):
            is_new = kept.type_name and not kept.stack and not kept.reasons
            if is_new and _may_be_of(kept, exception):
                return replace(plain, exception=kept, is_cause=False)
    if not plain.is_cause:
        return None
    _, reason = thread.code.last_thrown(thread.tid)
    return replace(plain, reason=reason or _NOT_TIED)


def _recorded(
    thread: ManagedThread, exception: SavedException, throwers: Sequence[Frame], *, is_innermost: bool
) -> tuple[ManagedException | None, str]:
    """Return the object that has recorded one of `throwers`, with what ties it to the exception; (None, "") if none.

    What was raised last is what the runtime's Thread keeps, and no other object. Objects on the stack count only for
    an exception further out: a retry loop throws at the same place again and again, and may keep what it has caught.
    """
    code, stack = thread.code, thread.stack
    kept = [found for found in code.exceptions_in_flight(thread.tid) if _may_be_of(found, exception)]
    on_stack: Sequence[ManagedException] | None = None
    for thrower in throwers:
        by_runtime = next((found for found in kept if _is_tied(found, thrower, exception)), None)
        if by_runtime is not None:
            return by_runtime, ""
        if not is_innermost:
            if on_stack is None:
                low = max(stack.limit, min(exception.frame_sp, exception.context.registers.sp))
                on_stack = code.exceptions_on_stack(low, stack.base)
            passed = [found for found in on_stack if has_passed(found, thrower) and _may_be_of(found, exception)]
            is_fault = exception.record.code not in {CLR, CLR_OLD}
            fitting = [found for found in passed if is_fault or _has_hresult(found, exception)]
            if fitting:
                return fitting[0], _SEVERAL if len(fitting) > 1 else ""
    return None, ""


def _may_be_of(found: ManagedException, exception: SavedException) -> bool:
    """Say whether `found` is of a class that the runtime makes of the record's code."""
    code = exception.record.code
    return code in {CLR, CLR_OLD} or not found.type_name or found.type_name in _CLASSES.get(code, _OTHER_CLASS)


def _is_of_managed_code(thread: ManagedThread, exception: SavedException, walk: Walk) -> bool:
    """Say whether a fault was in managed code or in the runtime, which may have raised it anew."""
    names = [name_of(thread.symbols, frame) for frame in walk.frames[:2]]
    ip = walk.frames[0].ip
    if is_raiser(names[0]):
        ip = exception.record.address
        if len(names) < 2 or not thread.code.is_in_runtime(walk.frames[1].ip):
            return False
        if is_raiser(thread.symbols.name(ip, is_return_address=True)):
            return True
        names[0] = thread.symbols.name(ip)
    return names[0].kind is SymbolKind.CLR or thread.code.is_in_runtime(ip)


def innermost_managed(symbols: Symbols, frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """Return the innermost managed frame; if that is of a stub, also the next ones, up to the first that is not.

    A frame whose name is lost may be of a stub; or of native code, where the headers of its DLL are lost.
    """
    found: list[Frame] = []
    stubs = lost = 0
    for frame in frames:
        name = name_of(symbols, frame)
        if name.kind is SymbolKind.CLR:
            found.append(frame)
            stubs += 1
            if name.module != DYNAMIC or stubs == _MAX_STUBS:
                break
        elif not name.symbol and name.reason and lost < _MAX_LOST:
            found.append(frame)
            lost += 1
    return tuple(found)


def has_passed(found: ManagedException, frame: Frame) -> bool:
    """Say whether the dispatch of the exception object `found` has passed `frame`: the object has recorded it."""
    return any(0 <= frame.ip - item.ip <= _MAX_ALIKE and item.sp == frame.sp for item in found.stack)


def _is_tied(found: ManagedException, thrower: Frame, exception: SavedException) -> bool:
    """Say whether `found`, which the runtime keeps, has recorded `thrower`, and not just on the way out from elsewhere.

    Example: a catch block throws, and the method that threw first has lost its name. Then the method with the catch
    block is the innermost one that is known of both throws, and both objects have recorded it.
    """
    if not has_passed(found, thrower):
        return False
    is_fault = exception.record.code not in {CLR, CLR_OLD}
    return is_fault or _has_hresult(found, exception) or has_passed(replace(found, stack=found.stack[:1]), thrower)


def _has_hresult(found: ManagedException, exception: SavedException) -> bool:
    parameters = exception.record.parameters
    return not parameters or found.hresult is None or found.hresult == parameters[0] & 0xFFFFFFFF
