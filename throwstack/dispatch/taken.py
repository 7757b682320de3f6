# SPDX-License-Identifier: Apache-2.0
"""Tells whether a handler has taken an exception whose dispatcher is still on the stack.

x86 example: a C++ catch block waits for an event. The C++ runtime calls the catch block from the handler that
RtlDispatchException calls, so that KiUserExceptionDispatcher is on the stack for as long as the block runs. But
ExecuteHandler's registration is unlinked by then. So if ExecuteHandler has a frame, and the chain of registrations is
known and has none for the exception, the exception was taken. Vectored handlers, the dispatcher's lock and
NtRaiseException have no such registration, and no frame of ExecuteHandler either.

x64 example: a __finally block runs before an __except block. RtlUnwindEx calls the __finally block, further in than the
dispatcher. So if a frame of RtlUnwindEx is further in than the CONTEXT of an exception, that exception was taken.

On both, RtlUnwind marks the record with the flags of unwinding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from throwstack.core.exception_record import UNWINDING
from throwstack.core.frames import Frame
from throwstack.core.memory import MemoryUnreadable
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.names.dispatch_functions import DISPATCHERS_MODULE, IN_DISPATCH, DispatchRole, role_of
from throwstack.names.frame_names import name_of
from throwstack.names.symbols import Name
from throwstack.unwind.proven import first_guess
from throwstack.unwind.target import Target

_WORD, _MAX_SEARCHED = 4, 1 << 20


class Taken(Enum):
    """Whether a handler has taken an exception."""

    NO = "no"
    YES = "yes"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether an exception was taken, and, if that cannot be told, why not."""

    taken: Taken
    why: str = ""


@dataclass(frozen=True, slots=True)
class Registered:
    """The exceptions that have a registration of ExecuteHandler in the thread's chain (x86).

    `is_known`: the chain was read to its end, so that what is not in it is not registered.
    """

    found: Sequence[SavedException]
    is_known: bool

    def has(self, item: SavedException, low: int) -> bool:
        """Say whether `item` has a registration at the stack address `low` or above."""
        return any(low <= known.frame_sp and known.key == item.key for known in self.found)


def is_certain(name: Name) -> bool:
    """Say whether the function of a frame surely is the one that `name` names, and not one after it."""
    return not name.is_doubtful


def taken(
    target: Target, item: SavedException, frames: Sequence[Frame], low: int, registered: Registered | None
) -> Answer:
    """Say whether a handler has taken the exception `item`.

    `frames` are those of the walk on which `item` was found, innermost first; those below its CONTEXT decide. `low` is
    the stack address from which on they are. `registered` has the thread's registrations on x86, None on x64.
    """
    inside = [frame for frame in frames if frame.sp < item.context.address]
    if item.record.flags & UNWINDING:
        return Answer(Taken.YES)
    if registered is not None and registered.has(item, low):
        return Answer(Taken.NO)
    doubt = ""
    for index, frame in enumerate(inside):
        name = name_of(target.symbols, frame)
        if role_of(name.symbol) not in {DispatchRole.UNWINDER, DispatchRole.CATCHER}:
            continue
        if is_certain(name):
            return Answer(Taken.YES)
        # What the dispatcher itself calls is RtlDispatchException. On Windows 7 x64 the nearest export is RtlUnwindEx.
        if not name.is_doubtful and not _is_called_by_dispatcher(target, inside, index):
            doubt = f"the frame at {frame.ip:#x} may be in {name.symbol}"
    guess = first_guess(target, inside)
    if registered is not None:
        answer = _by_registrations(target, item, inside, low, registered, is_guessed=guess is not None)
    elif guess is not None:
        answer = Answer(Taken.UNKNOWN, f"the stack between was guessed, from {inside[guess].ip:#x} on")
    else:
        # RtlRaiseException, what the dispatcher calls and the system call need no name. Others may unwind.
        known = 2 if Route.RAISE in item.routes else 1
        is_unnamed = any(is_unnamed_ntdll(target, name_of(target.symbols, frame)) for frame in inside[1:-known])
        answer = Answer(Taken.UNKNOWN, "functions of ntdll have no names") if is_unnamed else Answer(Taken.NO)
    return Answer(Taken.UNKNOWN, doubt) if doubt and answer.taken is Taken.NO else answer


def _by_registrations(
    target: Target, item: SavedException, inside: Sequence[Frame], low: int, registered: Registered, *, is_guessed: bool
) -> Answer:
    """Return the answer for an exception that has no registration of ExecuteHandler in the chain."""
    has_handler = any(runs_handler(target, frame, item) for frame in inside)
    if not has_handler and is_guessed:
        has_handler = _passed_to_handler(target, item, max(low, item.context.address - _MAX_SEARCHED))
        if not has_handler:
            return Answer(Taken.UNKNOWN, "the stack between was guessed, and no registration decides it")
    if not has_handler:
        return Answer(Taken.NO)
    if registered.is_known:
        return Answer(Taken.YES)
    return Answer(Taken.UNKNOWN, "the thread's exception registrations are not known, or not to their end")


def runs_handler(target: Target, frame: Frame, item: SavedException) -> bool:
    """Say whether `frame` calls the handler of another frame for `item`, or is that handler.

    The frame's name tells it, or on x86 its arguments: ExecuteHandler and the handlers take (record, registration,
    CONTEXT, ...). RtlDispatchException and the vectored handlers' caller take record and CONTEXT side by side.
    """
    name = name_of(target.symbols, frame)
    if is_certain(name) and role_of(name.symbol) is DispatchRole.RUNS_HANDLER:
        return True
    if not target.arch.facts.arguments_on_stack:
        return False
    first = frame.child_sp + 2 * _WORD
    try:
        record, context = target.memory.u32(first), target.memory.u32(first + 2 * _WORD)
    except (MemoryUnreadable, OverflowError):
        return False
    return record == item.record.location and context == item.context.address


def _passed_to_handler(target: Target, item: SavedException, low: int) -> bool:
    """Say whether the arguments of ExecuteHandler (record, a registration, CONTEXT) are on the stack below the CONTEXT.

    `low` is the stack address from which on they are searched.
    """
    data = target.memory.read_available(low, item.context.address - low)
    record = item.record.location.to_bytes(_WORD, "little")
    context = item.context.address.to_bytes(_WORD, "little")
    at = data.find(record)
    while at >= 0:
        if (low + at) % _WORD == 0 and data[at + 2 * _WORD : at + 3 * _WORD] == context:
            return True
        at = data.find(record, at + 1)
    return False


def _is_called_by_dispatcher(target: Target, frames: Sequence[Frame], index: int) -> bool:
    if index + 1 >= len(frames):
        return False
    caller = name_of(target.symbols, frames[index + 1])
    return role_of(caller.symbol) in {DispatchRole.DISPATCHER, DispatchRole.RAISER}


def shows_dispatch(target: Target, frames: Sequence[Frame]) -> bool:
    """Say whether a frame is, or may be, in a function that is on the stack only while an exception is dispatched.

    A function of ntdll that has no name at all may be one: none of ntdll's names could be read.
    """
    names = (name_of(target.symbols, frame) for frame in frames)
    return any(role_of(name.symbol) in IN_DISPATCH or is_unnamed_ntdll(target, name) for name in names)


def shows_start_of_dispatch(target: Target, frames: Sequence[Frame]) -> bool:
    """Say whether a frame is in the function that began a dispatch: the kernel's dispatcher or RtlRaiseException."""
    starts = {DispatchRole.DISPATCHER, DispatchRole.RAISER}
    return any(role_of(name_of(target.symbols, frame).symbol) in starts for frame in frames)


def is_unnamed_ntdll(target: Target, name: Name) -> bool:
    """Say whether `name` is that of an address in an ntdll of which no name at all could be read."""
    if name.symbol or name.module.lower() != DISPATCHERS_MODULE:
        return False
    image = target.images.find(name.address)
    return image is not None and not len(target.symbols.table(image))
