# SPDX-License-Identifier: Apache-2.0
"""Walks of x86 stacks: each frame asks its rules for the caller, and takes the best answer."""

from __future__ import annotations

from functools import partial

from throwstack.core.budgets import BUDGETS, Meter
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import X86, Registers
from throwstack.images.image import ImageMap
from throwstack.names.frame_records import FrameDataSource
from throwstack.names.symbols import Symbols
from throwstack.unwind.x86.calls import Fit
from throwstack.unwind.x86.candidates import Rule
from throwstack.unwind.x86.code import WorkLimitError
from throwstack.unwind.x86.decode import MASK
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


class _Steps:
    """The frames of a walk so far, and where it stands: at a frame that is not among them until its caller is known."""

    __slots__ = ("_is_open", "_label", "_note", "frames", "place")

    def __init__(self, place: Place, trust: Trust) -> None:
        self.frames: list[Frame] = []
        self.go_to(place, trust, "")

    def go_to(self, place: Place, trust: Trust, note: str) -> None:
        """Stand at the next frame."""
        self.place, self._label, self._note, self._is_open = place, trust, note, True

    def add(self, slot: int, return_address: int) -> None:
        """Add the frame, whose return address lies at `slot`."""
        self._add((slot - 4) & MASK, return_address, slot)

    def stop(self, return_address: int | None = None) -> None:
        """Add the frame as one that returns nowhere, unless it has been added."""
        if self._is_open:
            self._add((self.place.lowest_sp - 4) & MASK, return_address, None)

    def _add(self, child_sp: int, return_address: int | None, slot: int | None) -> None:
        place = self.place
        is_first = place.call_sp is None
        self.frames.append(Frame(place.registers, child_sp, return_address, slot, self._label, self._note, is_first))
        self._is_open = False


class Unwinder:
    """Unwinds the stacks of one x86 address space. Analyses of code are kept for all its threads."""

    def __init__(
        self,
        images: ImageMap,
        symbols: Symbols,
        frame_data: FrameDataSource | None = None,
        *,
        frame_limit: int = 1024,
        work_limit: int = BUDGETS.code.thread,
        meter: Meter | None = None,
    ) -> None:
        """Unwind code of `images`, with the frame data of their PDBs where there are any.

        `work_limit` is how many instructions one walk may follow. Stacks of real programs take some 20,000; half a
        million are ten seconds of work. `meter` counts them for the thread and the process.
        """
        self._memory = images.memory
        self._frame_limit = frame_limit
        self._work_limit = work_limit
        self._meter = meter
        self._new_rules = partial(Rules, images, symbols, frame_data, meter)
        self._rules = self._new_rules()

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
        steps = _Steps(Place(registers), trust)
        meter, rules = self._meter, self._rules
        rules.begin_walk(self._work_limit if meter is None else min(self._work_limit, meter.left(meter.budgets.code)))
        try:
            end, detail = self._walk(steps, stack, registrations)
        except WorkLimitError:
            self._rules = self._new_rules()
            steps.stop()
            end, detail = End.WORK_LIMIT, ""
        if meter is not None:
            meter.take(meter.budgets.code, rules.work)
        return Walk(tuple(steps.frames), end, detail)

    def _walk(self, steps: _Steps, stack: StackBounds, registrations: tuple[int, ...]) -> tuple[End, str]:
        """Take the steps that can be taken; return why there are no more."""
        arguments_size = 0
        while True:
            place = steps.place
            context = self._rules.interrupted(place, stack)
            if context is not None and len(steps.frames) < self._frame_limit:
                slot = context.address + X86.context_ip_at
                steps.add(slot, context.registers.ip)
                steps.go_to(Place(context.registers), Trust.CONTEXT, f"interrupted: CONTEXT at {context.address:#x}")
                arguments_size = 0
                continue
            found = self._rules.caller(place, stack, arguments_size, registrations)
            if found is None:
                end, detail = self._end(place, stack)
                steps.stop(0 if end is End.THREAD_START else None)
                return end, detail
            caller = found.caller
            steps.add(caller.slot, caller.return_address)
            if found.fit in {Fit.OUTERMOST, Fit.ZERO}:
                return End.THREAD_START, ""
            if found.fit is Fit.NOT_CODE:
                return End.BAD_RETURN_ADDRESS, f"{caller.return_address:#x}"
            if len(steps.frames) >= self._frame_limit:
                return End.FRAME_LIMIT, str(self._frame_limit)
            data = self._rules.record(place)
            is_called = found.rule is not Rule.CALLBACK
            arguments_size = data.parameters_size if data is not None and is_called else caller.popped or 0
            steps.go_to(self._rules.next_place(caller), found.trust, found.note)

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
