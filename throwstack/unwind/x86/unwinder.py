# SPDX-License-Identifier: Apache-2.0
"""Walks of x86 stacks: each frame asks its rules for the caller, and takes the best answer."""

from __future__ import annotations

from collections.abc import Iterator

from throwstack.frame_data import FrameDataSource
from throwstack.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.images import ImageMap
from throwstack.memory import MemoryUnreadable
from throwstack.registers import SP, Registers
from throwstack.symbols import Symbols
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.calls import Calls, Fit
from throwstack.unwind.x86.candidates import Candidate, Rule, best, trust
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.decode import MASK
from throwstack.unwind.x86.forward import Forward
from throwstack.unwind.x86.prologue import Caller, Place, Prologues
from throwstack.unwind.x86.scan import return_addresses
from throwstack.unwind.x86.starts import Starts

_START_ROUTINES = frozenset(
    {
        "BaseThreadStart",
        "BaseProcessStart",
        "BaseThreadInitThunk",
        "RtlUserThreadStart",
        "_RtlUserThreadStart",
        "__RtlUserThreadStart",
    }
)
_BELIEVED = (Fit.CONFIRMED, Fit.CALLS_FUNCTION, Fit.POSSIBLE)


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
        self._images = images
        self._memory = images.memory
        self._frame_data = frame_data
        self._frame_limit = frame_limit
        self._code = Code(images, symbols)
        self._callees = Callees(self._code)
        self._prologues = Prologues(self._code, self._callees)
        self._forward = Forward(self._code, self._callees)
        self._calls = Calls(self._code, self._prologues)
        self._starts = Starts(self._code)

    def walk(
        self,
        registers: Registers,
        stack: StackBounds,
        *,
        trust: Trust = Trust.CONTEXT,
    ) -> Walk:
        """Walk the stack from `registers`; `trust` says where they come from."""
        return _Walker(self, stack).walk(registers, trust)


class _Walker:
    """One walk."""

    def __init__(self, unwinder: Unwinder, stack: StackBounds) -> None:
        self._it = unwinder
        self._stack = stack

    def walk(self, registers: Registers, label: Trust) -> Walk:
        """Collect frames until the walk ends."""
        frames: list[Frame] = []
        place = Place(registers)
        note = ""
        while True:
            found = self._caller(place)
            sp = place.registers.sp
            if found is None:
                end, detail = self._end_without_caller(place)
                address = 0 if end is End.THREAD_START else None
                frames.append(Frame(place.registers, (sp - 4) & MASK, address, None, label, note))
                return Walk(tuple(frames), end, detail)
            caller = found.caller
            frames.append(
                Frame(place.registers, (caller.slot - 4) & MASK, caller.return_address, caller.slot, label, note)
            )
            if found.fit is Fit.OUTERMOST:
                return Walk(tuple(frames), End.THREAD_START)
            if len(frames) >= self._it._frame_limit:
                return Walk(tuple(frames), End.FRAME_LIMIT, str(self._it._frame_limit))
            place = Place(
                Registers(caller.return_address, caller.gpr), caller.call_sp, is_sp_exact=caller.popped is not None
            )
            label, note = trust(found), found.note

    def _end_without_caller(self, place: Place) -> tuple[End, str]:
        name = self._it._code.symbols.name(place.ip, is_return_address=place.call_sp is not None)
        if name.symbol in _START_ROUTINES:
            return End.THREAD_START, ""
        sp = place.registers.sp
        if not self._stack.contains(sp, 4):
            return End.STACK_BOUND, f"{sp:#x}"
        try:
            self._it._memory.u32(sp)
        except MemoryUnreadable:
            return End.UNREADABLE, f"{sp:#x}"
        return End.NO_RETURN_ADDRESS, ""

    def _caller(self, place: Place) -> Candidate | None:
        candidates: list[Candidate] = []
        for rule, caller in self._by_code(place):
            candidate = self._judge(place, rule, caller)
            if candidate is not None:
                candidates.append(candidate)
        found = best(candidates)
        if found is not None and found.fit in {*_BELIEVED, Fit.OUTERMOST}:
            return found
        candidates.extend(self._scan(place))
        return best(candidates)

    def _judge(self, place: Place, rule: Rule, caller: Caller | None, note: str = "") -> Candidate | None:
        if caller is None or not self._stack.contains(caller.slot, 4):
            return None
        lowest = place.call_sp if place.call_sp is not None else place.registers.sp
        if caller.slot < lowest:
            return None
        fit = self._it._calls.fit(place, caller.slot, caller.return_address)
        return Candidate(rule, caller, fit, note)

    def _by_code(self, place: Place) -> Iterator[tuple[Rule, Caller | None]]:
        it = self._it
        is_return_address = place.call_sp is not None
        start = it._starts.trusted(place.ip, is_return_address=is_return_address)
        if start is not None:
            yield Rule.FUNCTION, it._prologues.caller(start, place)
        yield Rule.FORWARD, it._forward.caller(place)
        if start is None:
            for guess in it._starts.guesses(place.ip - (1 if is_return_address else 0)):
                caller = it._prologues.caller(guess, place)
                if caller is None:
                    continue
                yield Rule.GUESSED_START, caller
                if caller.return_address and it._calls.fit(place, caller.slot, caller.return_address) in _BELIEVED:
                    break
        bp = place.registers.bp
        if bp is not None:
            yield Rule.FRAME_POINTER, self._frame_at(bp)

    def _frame_at(self, bp: int) -> Caller | None:
        memory = self._it._memory
        try:
            saved, return_address = memory.u32(bp), memory.u32(bp + 4)
        except MemoryUnreadable:
            return None
        gpr: list[int | None] = [None] * 8
        gpr[5], gpr[SP] = saved, (bp + 8) & MASK
        return Caller(bp + 4, return_address, (bp + 8) & MASK, None, tuple(gpr))

    def _scan(self, place: Place) -> Iterator[Candidate]:
        it = self._it
        start = place.call_sp if place.call_sp is not None else place.registers.sp
        for slot, word in return_addresses(it._memory, it._calls, start, self._stack):
            gpr: list[int | None] = [None] * 8
            gpr[SP] = slot + 4
            fit = it._calls.fit(place, slot, word)
            candidate = Candidate(Rule.SCAN, Caller(slot, word, slot + 4, None, tuple(gpr)), fit)
            yield candidate
            if fit in {Fit.CONFIRMED, Fit.CALLS_FUNCTION}:
                return
