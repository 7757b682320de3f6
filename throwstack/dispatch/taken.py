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

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from throwstack.core.exception_record import UNWINDING
from throwstack.core.frames import Frame
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.stack_words import round_up, words_equal
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.dispatch.x86 import NODE_ARGUMENTS, is_in_ntdll
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

    `chain` are the addresses of all registrations in the chain. `is_known`: the chain was read to its end, so that what
    is not in it is not registered.
    """

    found: Sequence[SavedException]
    chain: Sequence[int]
    is_known: bool

    def has(self, item: SavedException, low: int) -> bool:
        """Say whether `item` has a registration at the stack address `low` or above."""
        return any(low <= known.frame_sp and known.key == item.key for known in self.found)


def taken(
    target: Target, item: SavedException, frames: Sequence[Frame], low: int, registered: Registered | None
) -> Answer:
    """Say whether a handler has taken the exception `item`.

    `frames` are those of the walk on which `item` was found, innermost first; those below its CONTEXT decide. `low` is
    the stack address from which on they are. `registered` has the thread's registrations on x86, None on x64.
    """
    inside = [frame for frame in frames if frame.sp < item.context.address]
    if item.record.flags & UNWINDING:
        return _by_flag(target, item, inside, low, registered)
    if registered is not None and registered.has(item, low):
        return Answer(Taken.NO)
    doubt = ""
    for index, frame in enumerate(inside):
        name = name_of(target.symbols, frame)
        if role_of(name.symbol) not in {DispatchRole.UNWINDER, DispatchRole.CATCHER}:
            continue
        if name.is_certain:
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


def _by_flag(
    target: Target, item: SavedException, inside: Sequence[Frame], low: int, registered: Registered | None
) -> Answer:
    """Return the answer for an exception whose record says that the stack is being unwound.

    The flag may be damaged. If the frames are proven and no function among them can have set it, it is doubted. On x64
    RtlUnwindEx is on the stack for as long as the dispatcher is. On x86 an except block of Delphi runs on top of the
    dispatcher's frames without it, but then ExecuteHandler has a frame and no registration.
    """
    unwinders = {DispatchRole.UNWINDER, DispatchRole.CATCHER}
    names = [name_of(target.symbols, frame) for frame in inside]
    is_explained = first_guess(target, inside) is not None or any(
        role_of(name.symbol) in unwinders or is_unnamed_ntdll(target, name) for name in names
    )
    if registered is not None and any(runs_handler(target, frame, item) for frame in inside):
        is_explained |= not (registered.is_known and _damage(target, item, inside, low, registered))
    if is_explained or not inside:
        return Answer(Taken.YES)
    return Answer(Taken.UNKNOWN, "its record says that the stack is being unwound, but no function unwinds it")


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
        damage = _damage(target, item, inside, low, registered)
        return Answer(Taken.UNKNOWN, damage) if damage else Answer(Taken.YES)
    return Answer(Taken.UNKNOWN, "the thread's exception registrations are not known, or not to their end")


def _damage(target: Target, item: SavedException, inside: Sequence[Frame], low: int, registered: Registered) -> str:
    """Return why a chain without a registration for `item` may be damaged, although it ends properly; else "".

    When a handler takes an exception, RtlUnwind unlinks ExecuteHandler's registration, and what is left is sound: the
    registrations of the block that runs, and then that of the frame whose handler took the exception. A block that runs
    on top of the dispatcher's frames always has one: CallCatchBlock of the C++ runtime registers CatchGuardHandler, and
    Delphi's HandleAnyException a handler that ends the block. Where there is none, the chain's head was overwritten.
    """
    own = [node for node in registered.chain if low <= node < item.context.address]
    if not own and first_guess(target, inside) is None:  # frames that are guessed may be left from earlier
        return "the block that would handle it has no exception registration"
    for node in own:
        try:
            handler = target.memory.u32(node + 4)
        except MemoryUnreadable:
            handler = 0
        if not target.is_code(handler):
            return f"the handler {handler:#x} of the exception registration at {node:#x} is not code"
        is_found = any(known.frame_sp == node for known in registered.found)
        if not is_found and is_in_ntdll(target, handler) and _may_be_of_dispatch(target, item, node):
            return f"the exception registration at {node:#x} may be ExecuteHandler's, and no exception is found by it"
    asked = [registration for frame in inside for registration in _asked(target, frame, item)]
    if asked and not any(registration in registered.chain for registration in asked):
        return f"the exception registration at {asked[0]:#x}, whose handler was asked, is not in the thread's chain"
    return ""


def _may_be_of_dispatch(target: Target, item: SavedException, node: int) -> bool:
    """Say whether the registration at `node`, whose handler is ntdll's, may be ExecuteHandler's for `item`.

    Other functions of ntdll register a handler as well, as any function with a __try block does. Example: a catch block
    loads a DLL, whose DllMain waits; LdrLoadDll and LdrpCallInitRoutine have registrations. ExecuteHandler's has the
    registration that is asked after {next, handler}, and a little further out the arguments: record, that registration,
    CONTEXT. Two of the four words are enough, as the others may be damaged: from a sound one the exception is found.
    """
    try:
        data = target.memory.read(node + 2 * _WORD, NODE_ARGUMENTS)
    except (MemoryUnreadable, OverflowError):
        return True
    words = [word for (word,) in struct.iter_unpack("<I", data)]
    asked = words[0] if words[0] > item.context.address and words[0] % _WORD == 0 else None
    known = asked is not None and target.memory.is_readable(asked, 2 * _WORD)
    for record, registration, context in zip(words[1:], words[2:], words[3:], strict=False):
        is_passed = record == item.record.location, registration == asked, context == item.context.address
        if sum((known, *is_passed)) > 1:
            return True
    return False


def _asked(target: Target, frame: Frame, item: SavedException) -> Iterator[int]:
    """Yield the registration whose handler the arguments of an x86 frame say to be asked for `item`."""
    first = frame.child_sp + 2 * _WORD
    try:
        record, registration, context = (target.memory.u32(first + index * _WORD) for index in range(3))
    except (MemoryUnreadable, OverflowError):
        return
    if record == item.record.location and context == item.context.address:
        yield registration


def runs_handler(target: Target, frame: Frame, item: SavedException) -> bool:
    """Say whether `frame` calls the handler of another frame for `item`, or is that handler.

    The frame's name tells it, or on x86 its arguments: ExecuteHandler and the handlers take (record, registration,
    CONTEXT, ...). RtlDispatchException and the vectored handlers' caller take record and CONTEXT side by side.
    """
    name = name_of(target.symbols, frame)
    if name.is_certain and role_of(name.symbol) is DispatchRole.RUNS_HANDLER:
        return True
    if not target.arch.facts.arguments_on_stack:
        return False
    return any(True for _ in _asked(target, frame, item))


def _passed_to_handler(target: Target, item: SavedException, low: int) -> bool:
    """Say whether the arguments of ExecuteHandler (record, a registration, CONTEXT) are on the stack below the CONTEXT.

    `low` is the stack address from which on they are searched. The registration is in a frame further out than the
    CONTEXT. Another word between the two is not: a function that saves registers may have record, code and CONTEXT side
    by side.
    """
    low = round_up(low, _WORD)
    data = target.memory.read_available(low, item.context.address - low)
    context = item.context.address.to_bytes(_WORD, "little")
    for at in words_equal(data, item.record.location, _WORD):
        registration = int.from_bytes(data[at + _WORD : at + 2 * _WORD], "little")
        is_outer = registration > item.context.address and registration % _WORD == 0
        is_passed = is_outer and data[at + 2 * _WORD : at + 3 * _WORD] == context
        if is_passed and target.memory.is_readable(registration, 2 * _WORD):
            return True
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
    """Say whether `name` is of an address in ntdll, and none of ntdll's names could be read."""
    if name.symbol or name.module.lower() != DISPATCHERS_MODULE:
        return False
    image = target.images.find(name.address)
    return image is not None and not len(target.symbols.table(image))
