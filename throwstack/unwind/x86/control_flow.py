# SPDX-License-Identifier: Apache-2.0
"""Code followed from an address, all branches, with the symbolic state before each instruction it reaches.

In compiled code the depth of the stack and the place of a saved register are the same however an instruction is
reached, so each instruction is visited once, by the least doubtful path. That does not hold for the contents of a
register that has not been saved yet on the path first taken: who asks for a register's value at the start prefers the
word where it was saved (`restore`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from throwstack.core.registers import SP
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.decode import Immediate, Instruction, Opcode
from throwstack.unwind.x86.symbolic_execution import execute
from throwstack.unwind.x86.symbolic_state import SymbolicState, SymbolicValue

AfterCall = Callable[[SymbolicState, Instruction], "SymbolicState | None"]


@dataclass(frozen=True, slots=True)
class ReturnPoint:
    """A `ret` that leaves the code that was followed.

    `target` is the return address (a word of memory, as a value), `state` what holds after the `ret`, `popped` the
    bytes of arguments it removes.
    """

    address: int
    target: SymbolicValue | None
    state: SymbolicState
    popped: int


class ControlFlow:
    """The instructions that can follow a first one, found as far as they are asked for."""

    __slots__ = (
        *("_after_call", "_code", "_jumps", "_limit", "_order", "_queue"),
        *("has_unknown_jump", "returns", "states"),
    )

    def __init__(self, code: Code, start: int, state: SymbolicState, after_call: AfterCall, *, limit: int) -> None:
        """Start at `start` with `state`; `after_call` applies a call's effect (None: it does not come back)."""
        self._code = code
        self._after_call = after_call
        self._limit = limit
        self._order = 0
        self._queue: list[tuple[int, int, int, SymbolicState]] = []
        self._jumps: dict[int, set[SymbolicValue]] = {}
        self.states: dict[int, SymbolicState] = {}
        self.returns: list[ReturnPoint] = []
        self.has_unknown_jump = False
        self._add(start, state)

    def state_at(self, address: int) -> SymbolicState | None:
        """Return the state before the instruction at `address`, or None if it is not reached."""
        while address not in self.states and self._advance():
            pass
        return self.states.get(address)

    def first_return(self) -> ReturnPoint | None:
        """Return the least doubtful way out, or None."""
        while not self.returns and self._advance():
            pass
        return self.returns[0] if self.returns else None

    def all_returns(self) -> list[ReturnPoint]:
        """Return every way out."""
        while self._advance():
            pass
        return self.returns

    def jump_depths(self, address: int) -> set[SymbolicValue]:
        """Return the values that esp has, beyond doubt, where jumps lead to `address`."""
        self.all_returns()
        return self._jumps.get(address, set())

    @property
    def is_cut_short(self) -> bool:
        """Say whether the limit on instructions was met, so that what was not reached may still belong."""
        return len(self.states) >= self._limit

    def _add(self, address: int, state: SymbolicState) -> None:
        if address in self.states:
            return
        self._order += 1
        heapq.heappush(self._queue, (state.doubt, self._order, address, state))

    def _advance(self) -> bool:
        """Visit one instruction; return False when there is none left."""
        if not self._queue or self.is_cut_short:
            return False
        self._code.work()
        _, _, address, state = heapq.heappop(self._queue)
        if address in self.states:
            return True
        instruction = self._code.at(address)
        if instruction is None:
            self.has_unknown_jump = True
            return True
        self.states[address] = state
        self._follow(instruction, state)
        return True

    def _follow(self, instruction: Instruction, state: SymbolicState) -> None:
        op = instruction.op
        if op is Opcode.CALL:
            after = self._after_call(state, instruction)
            # A call that never returns may be a function's last instruction.
            if after is not None and not self._code.is_function_start(instruction.end):
                self._add(instruction.end, after)
        elif op is Opcode.BRANCH:
            self._add(instruction.end, state.without(instruction.written))
            self._jump(instruction, state.without(instruction.written))
        elif op is Opcode.JUMP:
            self._jump(instruction, state)
        elif op is Opcode.RETURN:
            self._return(instruction, state)
        elif op is not Opcode.STOP:
            self._add(instruction.end, execute(state, instruction))

    def _jump(self, instruction: Instruction, state: SymbolicState) -> None:
        target = self._code.target(instruction)
        targets = [target] if target is not None else self._code.table(instruction)
        if not targets:
            self.has_unknown_jump = True
        for address in targets:
            if state.sp is not None and not state.doubt:
                self._jumps.setdefault(address, set()).add(state.sp)
            self._add(address, state)

    def _return(self, instruction: Instruction, state: SymbolicState) -> None:
        target, after = state.pop()
        operand = instruction.operand(0)
        popped = operand.value if isinstance(operand, Immediate) else 0
        sp = after.sp
        after = after.with_register(SP, sp.plus(popped) if sp is not None else None)
        address = target.constant if target is not None else None
        if address is not None:
            # `push address; ret`, or a helper that was entered by a call that was followed.
            self._add(address, after)
        else:
            self.returns.append(ReturnPoint(instruction.address, target, after, popped))
