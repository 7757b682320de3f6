# SPDX-License-Identifier: Apache-2.0
"""Finds saved CONTEXTs on x86, by arguments on the stack, the dispatcher's frames and nested exception registrations.

x86 passes arguments on the stack, where they stay:

- UnhandledExceptionFilter's only argument points to EXCEPTION_POINTERS.
- KiUserExceptionDispatcher starts with the two pointers at esp.
- RtlRaiseException builds the CONTEXT in its own frame; the record is its argument.
- RaiseFailFastException(record, CONTEXT, flags) is given both, or builds what it was not given in its own frame.
- ExecuteHandler passes record, registration, CONTEXT and dispatcher context to a handler.

ExecuteHandler also registers a handler of ntdll, in case the handler that it calls raises an exception. This nested
registration is in the thread's chain (fs:[0]) until the handler has returned or has taken the exception. So an
exception is in flight if it has such a registration. The dispatcher's frames do not show that, because they can stay on
the stack after a handler has taken the exception: a C++ catch block runs below them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from throwstack.core.contexts import read_context
from throwstack.core.exception_record import UNWINDING
from throwstack.core.frames import Frame, StackBounds
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.stack_words import round_up, words_equal
from throwstack.dispatch.exception_pointers import pair_at
from throwstack.dispatch.raisers import FAIL_FAST, is_fail_fast_of_clr, is_plausible_record
from throwstack.dispatch.saved_exception import Route, SavedException, saved_exception
from throwstack.names.dispatch_functions import DispatchRole, role_of
from throwstack.names.symbols import Name
from throwstack.unwind.target import Target

FILTER = "UnhandledExceptionFilter"
END_OF_CHAIN = 0xFFFFFFFF

_ARGUMENT = 8
"""Distance in bytes from ChildEBP to the first argument.

At ChildEBP is the saved ebp (or the slot for it), then follow the return address and the argument.
"""
_WORD = 4
_AROUND_ESP = 0x10
_ADDRESS_IN_RECORD = 12
_MAX_FRAME = 0x1000
_HANDLERS = ("except_handler", "FrameHandler")
"""What the names of handlers have, whatever C runtime they are from."""
NODE_ARGUMENTS = 0x40
"""How many bytes after the start of a nested registration ExecuteHandler's arguments are searched.

They begin 0x14 bytes after it in Windows, and somewhat further in Wine.
"""


def from_frame(target: Target, stack: StackBounds, frame: Frame, name: Name) -> SavedException | None:
    """Return the exception that the arguments or the contents of `frame` point to, or None.

    `name` is the name of the frame's function, which determines where the pointers are.
    """
    if name.symbol == FILTER:
        return _from_filter_frame(target, stack, frame)
    role = role_of(name.symbol)
    if role is DispatchRole.DISPATCHER:
        return _from_dispatcher_frame(target, stack, frame)
    if role is DispatchRole.RAISER:
        return _from_raise_frame(target, stack, frame)
    if name.symbol == FAIL_FAST:
        return _from_fail_fast_frame(target, stack, frame)
    if name.module.lower() == "ntdll" or any(part in name.symbol for part in _HANDLERS):
        return _from_handler_frame(target, stack, frame)
    return None


def from_unnamed_frame(target: Target, stack: StackBounds, frame: Frame) -> SavedException | None:
    """Return the exception that a frame of ntdll gives whose function has no name, or None."""
    return (
        _from_dispatcher_frame(target, stack, frame)
        or _from_raise_frame(target, stack, frame)
        or _from_handler_frame(target, stack, frame)
    )


def _from_handler_frame(target: Target, stack: StackBounds, frame: Frame) -> SavedException | None:
    """Return the exception to which the arguments of a handler, or of a function that calls one, point; or None."""
    at, route = frame.child_sp + _ARGUMENT, Route.HANDLER_ARGUMENTS
    return pair_at(target, stack, at, route=route, frame_sp=frame.child_sp, distance=2) or pair_at(
        target, stack, at, route=route, frame_sp=frame.child_sp
    )


def _from_filter_frame(target: Target, stack: StackBounds, frame: Frame) -> SavedException | None:
    """Return the exception to which the argument of the UnhandledExceptionFilter frame `frame` points, or None."""
    try:
        pointers = target.memory.u32(frame.child_sp + _ARGUMENT)
    except MemoryUnreadable:
        return None
    return pair_at(target, stack, pointers, route=Route.FILTER_ARGUMENT, frame_sp=frame.child_sp)


def _from_dispatcher_frame(target: Target, stack: StackBounds, frame: Frame) -> SavedException | None:
    """Return the exception whose two pointers are at esp of the KiUserExceptionDispatcher frame `frame`, or None.

    Just below the two pointers are the arguments of the frame's call of RtlDispatchException, which are the same two
    pointers. So if esp is not known exactly, the words around it are tried, and either pair can be used.
    """
    for address in range(frame.sp - _AROUND_ESP, frame.sp + _AROUND_ESP, 4):
        found = pair_at(target, stack, address, route=Route.DISPATCHER, frame_sp=frame.sp)
        if found is not None and _names_one_instruction(found):
            return found
    return None


def _from_raise_frame(target: Target, stack: StackBounds, frame: Frame) -> SavedException | None:
    """Return the exception that the RtlRaiseException frame `frame` raises, or None.

    The CONTEXT is somewhere in the frame and has the caller's state. The record is the function's argument.
    """
    try:
        record = target.memory.u32(frame.child_sp + _ARGUMENT)
    except MemoryUnreadable:
        return None
    context = _captured(target, frame)
    if context is None:
        return None
    return saved_exception(target, stack, record, context, route=Route.RAISE, frame_sp=frame.child_sp)


def _from_fail_fast_frame(target: Target, stack: StackBounds, frame: Frame) -> SavedException | None:
    """Return the exception that the RaiseFailFastException frame `frame` reports, or None.

    Its arguments are the record and the CONTEXT. One that is null is in its frame, and has the caller's state.
    """
    try:
        record, context = (target.memory.u32(frame.child_sp + _ARGUMENT + 4 * index) for index in range(2))
        returns_to = target.memory.u32(frame.child_sp + 4)
    except MemoryUnreadable:
        return None
    at = context or _captured(target, frame)
    if at is None:
        return None
    records = [record] if record else _records_in(target, frame, returns_to)
    for place in records:
        found = saved_exception(target, stack, place, at, route=Route.FAIL_FAST_FRAME, frame_sp=frame.child_sp)
        if found is not None and (
            is_plausible_record(target, found.record)
            or is_fail_fast_of_clr(target, found.record, found.context.registers.ip)
        ):
            return found
    return None


def _records_in(target: Target, frame: Frame, address: int) -> Iterator[int]:
    """Yield the places of possible records in the frame `frame` whose ExceptionAddress is `address`."""
    data = target.memory.read_available(frame.sp, min(frame.child_sp - frame.sp, _MAX_FRAME))
    for offset in words_equal(data[_ADDRESS_IN_RECORD:], address, _WORD):
        yield frame.sp + offset


def _captured(target: Target, frame: Frame) -> int | None:
    """Return the address of the CONTEXT in the frame `frame` that has the state of the function's caller, or None."""
    slot = frame.child_sp + 4
    try:
        returns_to = target.memory.u32(slot)
        for address in range(round_up(max(frame.sp, slot - _MAX_FRAME), _WORD), slot, _WORD):
            if not target.meter.take(target.meter.budgets.checks):
                return None
            context = read_context(target.memory, address, Arch.X86)
            is_callers = context.registers.ip == returns_to and slot <= context.registers.sp <= slot + 8
            if is_callers and context.has_plausible_flags:
                return address
    except MemoryUnreadable:
        return None
    return None


def from_registrations(target: Target, stack: StackBounds, registrations: Sequence[int]) -> Iterator[SavedException]:
    """Yield the exceptions whose handlers are running, which are found by the nested registrations of ExecuteHandler.

    Args:
        target: the process.
        stack: the bounds of the thread's stack.
        registrations: the addresses of the registrations in the thread's chain, innermost first.

    A nested registration is {next, handler in ntdll, registration of the handler that is running}. Right above it on
    the stack are ExecuteHandler's arguments: the record, the same registration of the running handler, the CONTEXT.
    """
    for node in registrations:
        try:
            if not is_in_ntdll(target, target.memory.u32(node + 4)):
                continue
            running = target.memory.u32(node + 8)
            for address in range(node + 12, node + NODE_ARGUMENTS, 4):
                if target.memory.u32(address + 4) != running:
                    continue
                found = pair_at(target, stack, address, route=Route.REGISTRATION, frame_sp=node, distance=2)
                # RtlUnwind registers a handler in the same way, with a CONTEXT of its own, and marks the record.
                if found is not None and not found.record.flags & UNWINDING:
                    yield found
                    break
        except MemoryUnreadable:
            continue


def is_whole_chain(target: Target, registrations: Sequence[int]) -> bool:
    """Say whether a chain of registrations ends with its end mark, or is empty.

    If so, a registration that is not in the chain is unlinked, that is, no longer active.
    """
    try:
        return not registrations or target.memory.u32(registrations[-1]) == END_OF_CHAIN
    except MemoryUnreadable:
        return False


def is_in_ntdll(target: Target, address: int) -> bool:
    """Say whether `address` is in ntdll."""
    image = target.images.find(address)
    return image is not None and image.module.label.lower() == "ntdll"


def _names_one_instruction(found: SavedException) -> bool:
    return found.record.address == found.context.registers.ip
