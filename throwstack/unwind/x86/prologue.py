# SPDX-License-Identifier: Apache-2.0
"""A frame from the code of its function: followed from the function's first instruction to where the thread stands."""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import SP, Registers
from throwstack.unwind.after_call import calls_before
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.decode import MASK, Op
from throwstack.unwind.x86.flow import Flow
from throwstack.unwind.x86.restore import solve
from throwstack.unwind.x86.state import State, Value

_LIMIT = 8192


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a frame as one rule finds it.

    `slot` is where the return address lies, `call_sp` the caller's esp just before its call (just after the return, if
    the callee removes no arguments), `popped` the bytes of arguments the callee removes (None: not known), `gpr` the
    registers in the caller with esp = `call_sp` + `popped`.

    A helper such as `__SEH_epilog` takes its return address off the stack and keeps it in a register for a while:
    `is_in_register`, and `slot` is then where it was or will be. Such a helper changes its caller's frame, and
    `is_past_helper` says that `gpr` are the registers as the helper leaves them, not as it found them.
    """

    slot: int
    return_address: int
    call_sp: int
    popped: int | None
    gpr: tuple[int | None, ...]
    is_consistent: bool = True
    doubt: int = 0
    is_in_register: bool = False
    is_past_helper: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame stands: its registers, and for all but the innermost where the call below it began.

    `call_sp` is esp before that call instruction, None in the innermost frame; `is_sp_exact` says whether registers.sp
    takes account of the arguments the callee removed; `is_past_helper` as in `Caller`. `is_in_helper` says the
    contrary: a helper was called and has not changed the frame yet, so that `ip` will be reached with other registers.
    """

    registers: Registers
    call_sp: int | None = None
    is_sp_exact: bool = True
    is_past_helper: bool = False
    is_in_helper: bool = False

    @property
    def ip(self) -> int:
        """Return the instruction pointer."""
        return self.registers.ip

    @property
    def is_return_address(self) -> bool:
        """Say whether `ip` is where a call returns to, and not where the thread stands."""
        return self.call_sp is not None

    @property
    def lowest_sp(self) -> int:
        """Return the lowest address at which something of this frame can lie."""
        return self.registers.sp if self.call_sp is None else self.call_sp


class Prologues:
    """Functions followed from their starts, each as far as it was needed."""

    __slots__ = ("_callees", "_code", "_flows")

    def __init__(self, code: Code, callees: Callees) -> None:
        """Follow functions in `code`."""
        self._code = code
        self._callees = callees
        self._flows: dict[int, Flow] = {}

    def flow(self, start: int) -> Flow:
        """Return the analysis of the function at `start`."""
        flow = self._flows.get(start)
        if flow is None:
            flow = Flow(self._code, start, State(is_from_entry=True), self._callees.after_call, limit=_LIMIT)
            self._flows[start] = flow
        return flow

    def state(self, start: int, place: Place) -> State | None:
        """Return the state at `place` (at the call instruction, for a return address), or None if it is not reached."""
        flow = self.flow(start)
        if place.call_sp is None or place.is_past_helper:
            return flow.state_at(place.ip)
        for start_of_call in calls_before(self._code.memory, place.ip):
            call = self._code.at(start_of_call)
            if call is not None and call.op is Op.CALL and call.end == place.ip:
                state = flow.state_at(call.address)
                if state is not None:
                    return state
        return None

    def comes_back(self, start: int, place: Place) -> bool:
        """Say whether the call behind which `place` stands can come back there, given where its function begins.

        A call that never returns (`throw`) may end a block, and then its return address begins another one:
        `cmp eax, 100; jge next; … call _CxxThrowException; next: add esp, 18h`. Jumps lead there with another esp
        than the call would come back with.
        """
        state = self.state(start, place)
        if state is None or state.doubt or state.sp is None or place.call_sp is None or not place.is_sp_exact:
            return True
        removed = (place.registers.sp - place.call_sp) & MASK
        depths = [depth for depth in self.flow(start).jump_depths(place.ip) if depth.base == state.sp.base]
        return not depths or state.sp.plus(removed) in depths

    def reaches(self, start: int, place: Place) -> bool | None:
        """Say whether the function at `start` contains `place`; None if its code cannot be followed throughout."""
        if self.state(start, place) is not None:
            return True
        flow = self.flow(start)
        return None if flow.has_unknown_jump or flow.is_cut_short else False

    def at_entry(self, start: int, place: Place) -> tuple[int | None, ...] | None:
        """Return the registers with which the function at `start` was entered, or None, given that `place` is in it."""
        state = self.state(start, place)
        found = None if state is None else solve(state, _known(place), self._code.memory)
        return None if found is None else found.gpr

    def caller(self, start: int, place: Place) -> Caller | None:
        """Return the caller of the frame at `place`, given that its function begins at `start`."""
        state = self.state(start, place)
        if state is None:
            return None
        gpr = _known(place)
        memory = self._code.memory
        found = solve(state, gpr, memory)
        if found is None:
            return None
        entry = found.gpr[SP]
        assert entry is not None
        slot, held = _return_slot(state, entry, place.lowest_sp)
        if slot is None and held is None:
            return None
        try:
            return_address = gpr[held] if held is not None else memory.u32(slot or 0)
        except MemoryUnreadable:
            return None
        if return_address is None:
            return None
        call_sp = (entry + 4) & MASK
        popped = self._callees.return_size(start)
        registers = list(found.gpr)
        registers[SP] = (call_sp + (popped or 0)) & MASK
        return Caller(
            entry if slot is None else slot,
            return_address,
            call_sp,
            popped,
            tuple(registers),
            found.is_consistent,
            state.doubt,
            is_in_register=held is not None,
        )


def _known(place: Place) -> list[int | None]:
    """Return the registers known where `place` stands: before the call, for a return address."""
    gpr = list(place.registers.gpr)
    if place.call_sp is not None:
        gpr[:3] = [None] * 3
        if not place.is_past_helper:
            gpr[SP] = place.call_sp
    return gpr


def _return_slot(state: State, entry: int, lowest: int) -> tuple[int | None, int | None]:
    """Return where the return address lies: its slot, or the number of the register that holds it.

    That is where the call put it, unless the code has moved it (`__SEH_prolog`) or popped it (`__SEH_epilog`).
    """
    word = Value(SP, 0, is_word=True)
    if entry >= lowest and state.stack.get((SP, 0), word) == word:
        return entry, None
    for (base, offset), held in state.stack.items():
        if held == word and base == SP and (entry + offset) & MASK >= lowest:
            return (entry + offset) & MASK, None
    return None, next((number for number, held in enumerate(state.registers) if held == word), None)
