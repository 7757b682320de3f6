# SPDX-License-Identifier: Apache-2.0
"""Finds saved CONTEXTs on x64, in the frames of KiUserExceptionDispatcher and of the functions that raise exceptions.

UnhandledExceptionFilter's argument is in rcx, which is overwritten soon. But the record and CONTEXT to which it led are
in frames further out:

- The kernel delivers a fault by building, at rsp of KiUserExceptionDispatcher, a CONTEXT (0x4d0 bytes), a CONTEXT_EX,
  and the EXCEPTION_RECORD at +0x4f0.
- RtlRaiseException captures a CONTEXT in its own frame, with the state of its caller. The record is in the frame of the
  caller. Where a runtime has put another instruction address into the record, two adjacent pointers lead to both.
- RtlRaiseStatus captures a CONTEXT in its own frame, with its own state. The record is in this frame, too. In ntdll of
  17763 and 26100 the CONTEXT is at rsp+0xC0, the record at rsp+0x20.
- RaiseFailFastException(record, CONTEXT, flags) may be given both. Where it was not, it has them in its own frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, product

from throwstack.core.contexts import Context, read_context
from throwstack.core.exception_record import read_record
from throwstack.core.frames import Frame, StackBounds
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import X64, Arch
from throwstack.core.stack_words import round_up, words_equal
from throwstack.dispatch.raisers import MAX_FLAGS, captures_itself, is_fail_fast_of_clr, is_plausible_record
from throwstack.dispatch.saved_exception import Route, SavedException, is_raised_anew, saved_exception
from throwstack.unwind.target import Target

_RECORD_AFTER_CONTEXT = (0x4F0, *(0x4D0 + 8 * index for index in range(46)))
"""Distances in bytes from the start of the CONTEXT to the record, in the order in which they are tried.

The record is after a CONTEXT_EX of 0x20 bytes, or (before Windows 7) right after the CONTEXT. Versions of Wine put
other things between the two."""
_MAX_FRAME = 0x10000
_WORD = 8
_FLAGS_IN_RECORD, _NESTED_IN_RECORD, _ADDRESS_IN_RECORD = 4, 8, 0x10
_RECORD_IN_RAISE_STATUS = 0x20
_HOME_OF_RCX, _HOME_OF_RDX = 0, 8
"""Distances from the caller's rsp to the places where a function may keep its first two arguments."""


def from_dispatcher_frame(target: Target, stack: StackBounds, frame: Frame) -> SavedException | None:
    """Return the exception whose CONTEXT is at rsp of the KiUserExceptionDispatcher frame `frame`, or None."""
    for distance in _RECORD_AFTER_CONTEXT:
        found = saved_exception(
            target, stack, frame.child_sp + distance, frame.child_sp, route=Route.DISPATCHER, frame_sp=frame.child_sp
        )
        if found is not None and (_same_address(found) or is_raised_anew(target, found.record, found.context)):
            return found
    return None


def from_raise_frame(target: Target, stack: StackBounds, frame: Frame, caller: Frame) -> SavedException | None:
    """Return the exception whose CONTEXT the RtlRaiseException frame `frame` captured, or None.

    `caller` is the frame that called it. The CONTEXT has the caller's state: its rip is the return address of `frame`,
    and its rsp is that of the caller. The caller has built the record, mostly in its own frame. RtlRaiseStatus captures
    its own state. Its record is in its frame too, and names its own instruction or the caller's. Where it names another
    one, it is found by its place.
    """
    context = _context_in(target, frame, caller)
    if context is None:
        return None
    size = caller.child_sp - frame.child_sp
    in_frame = records_naming(target, stack, caller.ip, frame.child_sp, size)
    if context.registers.sp == frame.child_sp:
        in_frame = chain(records_naming(target, stack, context.registers.ip, frame.child_sp, size), in_frame)
        records = chain(in_frame, _plausible(target, frame.child_sp + _RECORD_IN_RAISE_STATUS))
    else:
        in_caller = records_naming(target, stack, caller.ip, caller.child_sp, _MAX_FRAME)
        records = chain(in_caller, in_frame, _records_beside(target, stack, frame, context.address))
    for record in records:
        found = saved_exception(target, stack, record, context.address, route=Route.RAISE, frame_sp=frame.child_sp)
        if found is not None:
            return found
    return None


def from_fail_fast_frame(target: Target, stack: StackBounds, frame: Frame, caller: Frame) -> SavedException | None:
    """Return the exception that the RaiseFailFastException frame `frame` reports, or None.

    Its arguments are in the home space of `caller`, which called it, or in nonvolatile registers, if the compiler has
    put them there. A CONTEXT that was not given is in its own frame, with the caller's state or its own. A record that
    was not given is there as well.
    """
    given = _given(target, frame, caller)
    captured = _context_in(target, frame, caller)
    contexts = [*given, *([] if captured is None else [captured.address])]
    own = records_naming(target, stack, caller.ip, frame.child_sp, caller.child_sp - frame.child_sp)
    route, sp = Route.FAIL_FAST_FRAME, frame.child_sp
    for record, context in product(chain(given, own), contexts):
        found = saved_exception(target, stack, record, context, route=route, frame_sp=sp)
        if found is not None and (
            is_plausible_record(target, found.record)
            or is_fail_fast_of_clr(target, found.record, found.context.registers.ip)
        ):
            return found
    return None


def _given(target: Target, frame: Frame, caller: Frame) -> list[int]:
    """Return the words that may be the first two arguments of the function of `frame`, which `caller` called."""
    words: list[int | None] = []
    for distance in (_HOME_OF_RCX, _HOME_OF_RDX):
        with suppress(MemoryUnreadable):
            words.append(target.memory.u64(caller.child_sp + distance))
    words += [frame.registers.gpr[number] for number in target.arch.facts.nonvolatile]
    return list(dict.fromkeys(word for word in words if word))


def _records_beside(target: Target, stack: StackBounds, frame: Frame, context: int) -> Iterator[int]:
    """Yield the records to which the word before a pointer to `context` points, from inside the frame `frame`.

    Record and CONTEXT are given from function to function as EXCEPTION_POINTERS {record, CONTEXT}, two adjacent words.
    """
    low = round_up(max(stack.limit, frame.child_sp - _MAX_FRAME), _WORD)
    data = target.memory.read_available(low, context - low)
    for offset in reversed(list(words_equal(data[_WORD:], context, _WORD))):  # of the word before
        yield from _plausible(target, int.from_bytes(data[offset : offset + _WORD], "little"))


def _plausible(target: Target, address: int) -> Iterator[int]:
    """Yield `address` if a record of an exception that was raised anew may be there."""
    with suppress(MemoryUnreadable):
        if is_plausible_record(target, read_record(target.memory, address, Arch.X64)):
            yield address


def records_naming(target: Target, stack: StackBounds, ip: int, low: int, size: int) -> Iterator[int]:
    """Yield the stack addresses at which there may be a record whose ExceptionAddress is `ip`.

    The `size` bytes from the stack address `low` on are searched.
    """
    low = round_up(max(low, stack.limit), _WORD)
    data = target.memory.read_available(low, min(size, stack.base - low))
    for offset in words_equal(data[_ADDRESS_IN_RECORD:], ip, _WORD):
        flags = data[offset + _FLAGS_IN_RECORD : offset + _NESTED_IN_RECORD]
        if int.from_bytes(flags, "little") <= MAX_FLAGS:
            yield low + offset


def _context_in(target: Target, frame: Frame, caller: Frame) -> Context | None:
    """Return the CONTEXT in the frame `frame` that has the state of its caller, or else of the function itself."""
    alignment = X64.context_alignment
    own: Context | None = None
    for address in range(round_up(frame.child_sp, alignment), caller.child_sp, alignment)[: _MAX_FRAME // alignment]:
        if not target.meter.take(target.meter.budgets.checks):
            break
        try:
            context = read_context(target.memory, address, Arch.X64)
        except MemoryUnreadable:
            break
        ip, sp = context.registers.ip, context.registers.sp
        if not context.has_plausible_flags:
            continue
        if (ip, sp) == (caller.ip, caller.child_sp):
            return context
        if own is None and sp == frame.child_sp and captures_itself(target, ip):
            own = context
    return own


def _same_address(found: SavedException) -> bool:
    return found.record.address == found.context.registers.ip
