# SPDX-License-Identifier: Apache-2.0
"""Walks of x86 stacks: each frame asks its rules for the caller, and takes the best answer."""

from __future__ import annotations

from throwstack.frame_data import FrameDataSource
from throwstack.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.images import ImageMap
from throwstack.memory import Memory, MemoryUnreadable
from throwstack.registers import Registers
from throwstack.symbols import Symbols
from throwstack.unwind.x86.calls import Fit
from throwstack.unwind.x86.candidates import Rule
from throwstack.unwind.x86.decode import MASK
from throwstack.unwind.x86.interrupted import EIP_OFFSET
from throwstack.unwind.x86.prologue import Place
from throwstack.unwind.x86.rules import Rules

_START_ROUTINES = frozenset(
    {
        *("BaseThreadStart", "BaseProcessStart", "BaseThreadInitThunk"),
        *("RtlUserThreadStart", "_RtlUserThreadStart", "__RtlUserThreadStart"),
    }
)
_MAX_REGISTRATIONS = 256
_END_OF_CHAIN = 0xFFFFFFFF


class Unwinder:
    """Unwinds the stacks of one x86 address space. Analyses of code are kept for all its threads."""

    def __init__(
        self,
        images: ImageMap,
        symbols: Symbols,
        frame_data: FrameDataSource | None = None,
        *,
        frame_limit: int = 1024,
    ) -> None:
        """Unwind code of `images`, with the frame data of their PDBs where there are any."""
        self._memory = images.memory
        self._frame_limit = frame_limit
        self._rules = Rules(images, symbols, frame_data)

    def walk(
        self,
        registers: Registers,
        stack: StackBounds,
        *,
        trust: Trust = Trust.CONTEXT,
        seh_head: int | None = None,
    ) -> Walk:
        """Walk the stack from `registers`; `trust` says where they come from.

        `seh_head` is the thread's first exception registration (`fs:[0]`), if it is known.
        """
        registrations = registration_chain(self._memory, seh_head, stack)
        frames: list[Frame] = []
        place, label, note, arguments_size = Place(registers), trust, "", 0
        while True:
            context = self._rules.interrupted(place, stack)
            if context is not None and len(frames) < self._frame_limit:
                slot = context.address + EIP_OFFSET
                goes_to = context.registers.ip
                frames.append(Frame(place.registers, slot - 4, goes_to, slot, label, note, place.call_sp is None))
                place, label, arguments_size = Place(context.registers), Trust.CONTEXT, 0
                note = f"interrupted: CONTEXT at {context.address:#x}"
                continue
            found = self._rules.caller(place, stack, arguments_size, registrations)
            if found is None:
                end, detail = self._end(place, stack)
                address = 0 if end is End.THREAD_START else None
                low = (place.lowest_sp - 4) & MASK
                frames.append(Frame(place.registers, low, address, None, label, note, place.call_sp is None))
                return Walk(tuple(frames), end, detail)
            caller = found.caller
            child_sp = (caller.slot - 4) & MASK
            frames.append(
                Frame(place.registers, child_sp, caller.return_address, caller.slot, label, note, place.call_sp is None)
            )
            if found.fit in {Fit.OUTERMOST, Fit.ZERO}:
                return Walk(tuple(frames), End.THREAD_START)
            if found.fit is Fit.NOT_CODE:
                return Walk(tuple(frames), End.BAD_RETURN_ADDRESS, f"{caller.return_address:#x}")
            if len(frames) >= self._frame_limit:
                return Walk(tuple(frames), End.FRAME_LIMIT, str(self._frame_limit))
            data = self._rules.record(place)
            is_called = found.rule is not Rule.CALLBACK
            arguments_size = data.parameters_size if data is not None and is_called else caller.popped or 0
            place = self._rules.next_place(caller)
            label, note = found.trust, found.note

    def _end(self, place: Place, stack: StackBounds) -> tuple[End, str]:
        name = self._rules.symbols.name(place.ip, is_return_address=place.is_return_address)
        if name.symbol in _START_ROUTINES:
            return End.THREAD_START, ""
        sp = place.lowest_sp
        if not stack.contains(sp, 4):
            return End.STACK_BOUND, f"{sp:#x}"
        if not self._memory.is_readable(sp, 4):
            return End.UNREADABLE, f"{sp:#x}"
        return End.NO_RETURN_ADDRESS, "out of a user-mode callback" if self._rules.is_callback(place) else ""


def registration_chain(memory: Memory, head: int | None, stack: StackBounds) -> tuple[int, ...]:
    """Return the addresses of a thread's exception registrations, innermost first, as far as they make sense.

    Each lies on the stack, above the one before it; the chain ends with 0xFFFFFFFF.
    """
    chain: list[int] = []
    address = head
    while address is not None and address != _END_OF_CHAIN and len(chain) < _MAX_REGISTRATIONS:
        if address % 4 or not stack.contains(address, 8) or (chain and address <= chain[-1]):
            break
        chain.append(address)
        try:
            address = memory.u32(address)
        except MemoryUnreadable:
            break
    return tuple(chain)
