# SPDX-License-Identifier: Apache-2.0
"""Finds the caller of a frame by following its function's code from the start up to the frame's ip."""

from __future__ import annotations

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import SP
from throwstack.unwind.after_call import calls_before
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.control_flow import ControlFlow
from throwstack.unwind.x86.decode import MASK
from throwstack.unwind.x86.saved_registers import registers_at_start
from throwstack.unwind.x86.symbolic_state import SymbolicState, SymbolicValue

_LIMIT = 8192
_RETURN = SymbolicValue(SP, 0, is_word=True)


class Prologues:
    """Finds callers by following functions from their starts, each of them once and only as far as needed."""

    __slots__ = ("_callees", "_code", "_flows")

    def __init__(self, code: Code, callees: Callees) -> None:
        """`code` is the address space's code; `callees` find what calls do to the stack pointer and the registers."""
        self._code = code
        self._callees = callees
        self._flows: dict[int, ControlFlow] = {}

    def flow(self, start: int) -> ControlFlow:
        """Return the analysis that follows the code of the function at `start`, made at the first request."""
        flow = self._flows.get(start)
        if flow is None:
            flow = ControlFlow(
                self._code, start, SymbolicState(is_from_entry=True), self._callees.after_call, limit=_LIMIT
            )
            self._flows[start] = flow
        return flow

    def state(self, start: int, place: Place) -> SymbolicState | None:
        """Return the symbolic state at `place`, or None if the code from `start` on does not reach it.

        If the ip of `place` is a return address, the state is the one before the call instruction. It is the one after
        the call if `place.is_past_helper` is True.
        """
        flow = self.flow(start)
        if place.call_sp is None or place.is_past_helper:
            return flow.state_at(place.ip)
        for start_of_call in calls_before(self._code.memory, place.ip):
            state = flow.state_at(start_of_call)
            if state is not None:
                return state
        return None

    def comes_back(self, start: int, place: Place) -> bool:
        """Say whether the call before `place`, a return address in the function at `start`, can return there.

        A block of code may end with a call that never returns (`throw`). The return address of that call is then the
        start of another block, as in `cmp eax, 100; jge next; … call _CxxThrowException; next: add esp, 18h`. At the
        jumps to that block esp differs from esp after a return of the call, and the result is False. If there are no
        such jumps, or if it cannot be decided, the result is True.
        """
        state = self.state(start, place)
        if state is None or state.doubt or state.sp is None or place.call_sp is None or not place.is_sp_exact:
            return True
        removed = (place.registers.sp - place.call_sp) & MASK
        depths = [depth for depth in self.flow(start).jump_depths(place.ip) if depth.base == state.sp.base]
        return not depths or state.sp.plus(removed) in depths

    def reaches(self, start: int, place: Place) -> bool | None:
        """Say whether the code of the function at `start` leads to `place`.

        The result is None if it does not, but not all of the function's code could be followed.
        """
        if self.state(start, place) is not None:
            return True
        flow = self.flow(start)
        return None if flow.has_unknown_jump or flow.is_cut_short else False

    def at_entry(self, start: int, place: Place) -> tuple[int | None, ...] | None:
        """Return the registers with which the function at `start`, which contains `place`, was entered.

        A register that is not known is None. The result is None if not even esp is known.
        """
        state = self.state(start, place)
        found = None if state is None else registers_at_start(state, _known(place), self._code.memory)
        return None if found is None else found.gpr

    def caller(self, start: int, place: Place) -> Caller | None:
        """Return the caller of the frame at `place` if its function begins at `start`, or None if none is found."""
        state = self.state(start, place)
        if state is None:
            return None
        gpr = _known(place)
        memory = self._code.memory
        found = registers_at_start(state, gpr, memory)
        if found is None:
            return None
        entry = found.gpr[SP]
        assert entry is not None
        slot = _return_slot(state, entry, place.lowest_sp)
        if slot is None:
            # Helpers pop their return address into a register.
            return_address = next((gpr[n] for n, held in enumerate(state.registers) if held == _RETURN), None)
        else:
            try:
                return_address = memory.u32(slot)
            except MemoryUnreadable:
                return None
        if return_address is None:
            return None
        call_sp = (entry + 4) & MASK
        popped = self._callees.popped_bytes(start)
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
            is_in_register=slot is None,
        )


def _known(place: Place) -> list[int | None]:
    """Return the registers of `place` at the point of the code to which `Prologues.state` belongs.

    If the ip of `place` is a return address, that is before the call, and eax, ecx and edx are not known.
    """
    gpr = list(place.registers.gpr)
    if place.call_sp is not None:
        gpr[:3] = [None] * 3
        if not place.is_past_helper:
            gpr[SP] = place.call_sp
    return gpr


def _return_slot(state: SymbolicState, entry: int, lowest: int) -> int | None:
    """Return the stack address of the return address, or None if it is not on the stack.

    `state` is the state at the frame's ip, `entry` is esp at the function's start, and `lowest` is the lowest address
    that belongs to the frame. Ordinary functions leave the return address in the slot `entry`, where the call has put
    it. Helpers move it: `__SEH_prolog` pushes it once more, below the frame that it has built, and `__SEH_epilog` pops
    it into ecx.
    """
    if entry >= lowest and state.stack.get((SP, 0), _RETURN) == _RETURN:
        return entry
    copies = (entry + offset & MASK for (base, offset), held in state.stack.items() if held == _RETURN and base == SP)
    return next((slot for slot in copies if slot >= lowest), None)
