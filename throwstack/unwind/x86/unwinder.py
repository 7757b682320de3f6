# SPDX-License-Identifier: Apache-2.0
"""Walks x86 stacks. The caller of each frame is the best of those that the rules (see `rules`) find for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from throwstack.core.budgets import BUDGETS, Meter
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import X86, Registers
from throwstack.core.stop import Stop
from throwstack.images.image import ImageMap
from throwstack.names.frame_records import FrameDataSource
from throwstack.names.symbols import Symbols
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.kept_frames import MOST_FRAMES, Depth
from throwstack.unwind.target import stack_around
from throwstack.unwind.walk import Step, walk
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.candidates import Candidate, Rule
from throwstack.unwind.x86.code import WorkLimitError
from throwstack.unwind.x86.decode import MASK
from throwstack.unwind.x86.return_address import Fit
from throwstack.unwind.x86.rules import Rules

_MAX_REGISTRATIONS = 256


@dataclass(slots=True)
class X86Step(Step):
    """A frame that a walk has reached, with the facts that the step to its caller needs.

    `place` is the frame with its registers. `arguments_size` is the size in bytes of the arguments that the frame has
    pushed for the call of the next inner frame. `registrations` are the addresses of the thread's exception
    registrations. `stack` are the bounds of the stack that the frame is on, None if it is the one that the walk began
    on.
    """

    place: Place = field(kw_only=True)
    arguments_size: int = 0
    registrations: tuple[int, ...] = ()
    stack: StackBounds | None = None


class Unwinder:
    """Unwinds the stacks of one x86 address space, and keeps analyses of code for all of its threads."""

    def __init__(
        self,
        images: ImageMap,
        symbols: Symbols,
        frame_data: FrameDataSource | None = None,
        *,
        frame_limit: int = MOST_FRAMES,
        work_limit: int = BUDGETS.code.thread,
        meter: Meter | None = None,
        outside: CodeOutside | None = None,
    ) -> None:
        """`images` are the loaded images, whose code is on the stacks.

        `symbols` give the names and starts of functions. `frame_data` supplies the FrameData and FPO records of the
        images' PDBs, and is None if there are none. A walk goes through at most `frame_limit` frames, and follows at
        most `work_limit` instructions. Stacks of real programs take some 20,000, and half a million take ten seconds.
        `meter` counts the followed instructions and the frames of deep recursion against the budgets of the thread and
        the process. `outside` is what is known of code outside the images.
        """
        self._memory = images.memory
        self._depth = Depth(frame_limit, meter)
        self._work_limit = work_limit
        self._meter = meter
        self._outside = outside or CodeOutside(images)
        self._new_rules = partial(Rules, images, symbols, frame_data, meter, self._outside)
        self._rules = self._new_rules()

    def walk(
        self,
        registers: Registers,
        stack: StackBounds,
        *,
        trust: Trust = Trust.CONTEXT,
        seh_head: int | None = None,
    ) -> Walk:
        """Walk the stack from `registers`, those of the innermost frame.

        `stack` are the bounds of the thread's stack. `trust` says where the registers come from. `seh_head` is the
        address of the thread's first exception registration (`fs:[0]`), or None if it is not known.
        """
        registrations = registration_chain(self._memory, seh_head, stack)
        meter, rules = self._meter, self._rules
        rules.begin_walk(self._work_limit if meter is None else min(self._work_limit, meter.left(meter.budgets.code)))
        place = rules.first_place(registers)
        is_interrupted = not place.is_return_address
        first = X86Step(registers, None, trust, is_interrupted, place=place, registrations=registrations)
        found = walk(self, first, stack, self._depth.limit)
        self._depth.spend(found)
        if meter is not None:
            meter.take(meter.budgets.code, rules.work)
        return found

    def step(self, at: X86Step, stack: StackBounds) -> X86Step | Stop:
        """Return the step that reaches the caller of the frame `at`, or the reason why the walk ends there."""
        place, caller, first_stack = at.place, None, stack
        stack = at.stack or stack
        try:
            context = self._rules.interrupted(place, stack)
            if context is not None:
                return X86Step(
                    context.registers,
                    context.address + X86.context_ip_at,
                    Trust.CONTEXT,
                    is_interrupted=True,
                    note=f"interrupted: CONTEXT at {context.address:#x}",
                    place=Place(context.registers),
                    registrations=at.registrations,
                    stack=at.stack,
                )
            found = self._rules.caller(place, stack, at.arguments_size, at.registrations)
            if found is None:
                return self._end(place, stack)
            caller = found.caller
            if found.fit is Fit.OUTERMOST:
                return Stop(End.THREAD_START, "", caller.return_address, caller.slot)
            if found.fit is Fit.ZERO:
                return Stop(End.LOST_RETURN_ADDRESS, found.gap, caller.return_address, caller.slot)
            return self._reached(found, at, first_stack)
        except WorkLimitError:
            self._rules = self._new_rules()
            return (
                Stop(End.WORK_LIMIT) if caller is None else Stop(End.WORK_LIMIT, "", caller.return_address, caller.slot)
            )

    def _reached(self, found: Candidate, at: X86Step, first_stack: StackBounds) -> X86Step:
        """Return the step that reaches the caller in `found`; `at` is the step that has reached the frame it called.

        `first_stack` are the bounds of the stack that the walk began on.
        """
        caller, stack = found.caller, at.stack
        if found.has_switched:
            is_back = first_stack.contains(caller.slot, 4)
            stack = None if is_back else stack_around(self._memory, caller.slot)
        data = self._rules.record(at.place)
        is_called = found.rule is not Rule.CALLBACK
        place = self._rules.next_place(caller)
        return X86Step(
            place.registers,
            caller.slot,
            found.trust,
            note=found.note,
            gap=found.gap,
            place=place,
            arguments_size=data.parameters_size if data is not None and is_called else caller.popped or 0,
            registrations=at.registrations,
            stack=stack,
        )

    def frame(self, at: X86Step, return_address: int | None, slot: int | None) -> Frame:
        """Return the frame that the step `at` has reached.

        `return_address` is the frame's return address, and `slot` is the stack address of that. Both are None if no
        return address was found.
        """
        child_sp = ((at.place.lowest_sp if slot is None else slot) - 4) & MASK
        return Frame(at.registers, child_sp, return_address, slot, at.trust, at.note, at.is_interrupted)

    def _end(self, place: Place, stack: StackBounds) -> Stop:
        """Return the reason for the end of a walk at the frame `place`, for which no rule finds a caller."""
        if self._rules.outermost.is_start_routine(place):
            return Stop(End.THREAD_START, "", 0)
        sp = place.lowest_sp
        if not stack.contains(sp, 4):
            return Stop(End.STACK_BOUND, f"{sp:#x}")
        if not self._memory.is_readable(sp, 4):
            return Stop(End.UNREADABLE, f"{sp:#x}")
        return Stop(End.NO_RETURN_ADDRESS, "out of a user-mode callback" if self._rules.is_callback(place) else "")


def registration_chain(memory: Memory, head: int | None, stack: StackBounds) -> tuple[int, ...]:
    """Return the addresses of a thread's exception registrations, innermost first.

    `head` is the address of the first one (`fs:[0]`), or None if it is not known. Each registration must be in `stack`,
    the thread's stack, and above the one before it. The chain ends before the first registration that is not so,
    mostly with 0xFFFFFFFF. At most 256 registrations are returned.
    """
    chain: list[int] = []
    address = head
    while address is not None and len(chain) < _MAX_REGISTRATIONS:
        if address % 4 or not stack.contains(address, 8) or (chain and address <= chain[-1]):
            break
        chain.append(address)
        try:
            address = memory.u32(address)
        except MemoryUnreadable:
            break
    return tuple(chain)
