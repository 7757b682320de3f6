# SPDX-License-Identifier: Apache-2.0
"""Follows code from an address, on all branches, with the symbolic state before each instruction that is reached.

In compiled code the depth of the stack and the place of a saved register do not depend on the path to an instruction.
So each instruction is visited once, on the path on which the fewest stack adjustments of calls were guessed. The number
of these guesses is the `doubt` of the state.

A register's contents do depend on the path, as long as it has not been saved. For example, a function may save esi only
in the branch that uses it ("shrink wrapping"). So if a register was saved on the stack, `saved_registers` takes its
value from there and not from the register.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from throwstack.core.registers import SP
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.decode import Immediate, Instruction, Opcode
from throwstack.unwind.x86.symbolic_execution import execute
from throwstack.unwind.x86.symbolic_state import SymbolicState, SymbolicValue

AfterCall = Callable[[SymbolicState, Instruction], "SymbolicState | None"]


@dataclass(frozen=True, slots=True)
class ReturnPoint:
    """A `ret` that returns to an address outside of the code that was followed.

    `address` is the address of the `ret`. `target` is the return address as a symbolic value (mostly the word at a
    stack address), or None if it is unknown. `state` is the state after the `ret`. `popped` is how many bytes of
    arguments the `ret` removes.
    """

    address: int
    target: SymbolicValue | None
    state: SymbolicState
    popped: int


class ControlFlow:
    """The instructions that can be reached from a first instruction, each with the symbolic state before it.

    They are visited step by step, and only as far as a method needs them for its result. `states` maps the addresses of
    the visited instructions to the states before them, and `returns` are the `ret` instructions found so far.
    `has_unknown_jump` is True if a jump's target is not known, or if an instruction cannot be decoded.
    """

    __slots__ = (
        *("_after_call", "_code", "_jumps", "_limit", "_order", "_queue"),
        *("has_unknown_jump", "returns", "states"),
    )

    def __init__(self, code: Code, start: int, state: SymbolicState, after_call: AfterCall, *, limit: int) -> None:
        """Prepare to follow `code` from the address `start`.

        `state` is the state before the first instruction. At most `limit` instructions are visited. `after_call` is
        called with the state before a call and the call instruction. It returns the state after the call, or None if
        the code after the call is not to be followed.
        """
        self._code = code
        self._after_call = after_call
        self._limit = limit
        self._order = count()
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
        """Return the `ret` at the end of the path with the fewest guesses, or None if no `ret` is reached."""
        while not self.returns and self._advance():
            pass
        return self.returns[0] if self.returns else None

    def all_returns(self) -> list[ReturnPoint]:
        """Return every `ret` that is reached and returns to an address outside of the followed code."""
        while self._advance():
            pass
        return self.returns

    def jump_depths(self, address: int) -> set[SymbolicValue]:
        """Return the values of esp at the jumps to `address`, without those that depend on a guess."""
        self.all_returns()
        return self._jumps.get(address, set())

    @property
    def is_cut_short(self) -> bool:
        """Say whether the limit of instructions was reached, so that parts of the function may be unvisited."""
        return len(self.states) >= self._limit

    def _add(self, address: int, state: SymbolicState) -> None:
        if address in self.states:
            return
        heapq.heappush(self._queue, (state.doubt, next(self._order), address, state))

    def _advance(self) -> bool:
        """Visit one more instruction, and return False if none is left or the limit was reached."""
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
            # A call that never returns may be the last instruction of a function. The next function follows it.
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
            # `push address; ret` is a jump. So is the `ret` of a helper whose call was followed.
            self._add(address, after)
        else:
            self.returns.append(ReturnPoint(instruction.address, target, after, popped))
