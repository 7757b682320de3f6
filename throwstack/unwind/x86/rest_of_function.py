# SPDX-License-Identifier: Apache-2.0
"""Finds the caller of a frame by following the code of its function that is still to run, up to its `ret`.

The start of the function need not be known, but esp must be exact unless the code sets it from another register
(`leave`). No caller is found if the code does not reach a `ret`.
"""

from __future__ import annotations

from throwstack.core.registers import SP, X86
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.callees import CalleeKind, Callees
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.control_flow import ControlFlow, ReturnPoint
from throwstack.unwind.x86.decode import MASK, Opcode
from throwstack.unwind.x86.saved_registers import address_of, evaluate
from throwstack.unwind.x86.symbolic_state import SymbolicState, value

_LIMIT = 2000
_LIMIT_OF_WALK = 1 << 15
_THEREAFTER = 200
"""The limit for a frame, once a walk has followed more than the limit of a walk.

A large function can have a hundred frames on a stack, each of which has called itself at another place. The code ahead
of each goes on to the end of the function. Without this limit, their walk would follow the same code a hundred times.
"""
_STRAIGHT = 32
_NEAR = 0x10000
_NOT_STRAIGHT = frozenset({Opcode.CALL, Opcode.JUMP, Opcode.BRANCH, Opcode.STOP, Opcode.SYSTEM_CALL})
_Key = tuple[int, bool, tuple[tuple[int, int], ...]]


class RestOfFunction:
    """Finds callers by following code from a frame's ip to a `ret`. Results are kept, so that code is followed once."""

    __slots__ = ("_callees", "_code", "_cut_short", "_followed", "_returns")

    def __init__(self, code: Code, callees: Callees) -> None:
        """`code` is the address space's code; `callees` find what calls do to the stack pointer and the registers."""
        self._code = code
        self._callees = callees
        self._returns: dict[_Key, ReturnPoint | None] = {}
        self._cut_short: list[_Key] = []
        self._followed = 0

    def begin_walk(self) -> None:
        """Count the instructions that are followed from zero again, for another walk."""
        self._followed = 0
        for key in self._cut_short:
            del self._returns[key]
        self._cut_short.clear()

    def nearest_return(self, place: Place) -> ReturnPoint | None:
        """Return the `ret` that the code at `place` reaches with the fewest guesses, or None if it reaches none."""
        gpr, sp = place.registers.gpr, place.registers.sp
        # A nonvolatile register that points into this part of the stack is followed as a distance from esp, so that a
        # word which is stored through one of them and loaded through another is the same word. For example, ebp is
        # esp+10h here: `mov [esp+8], ecx; mov ebx, [ebp-8]`.
        held = ((number, gpr[number]) for number in X86.nonvolatile)
        near = tuple((number, at - sp) for number, at in held if at is not None and sp <= at < sp + _NEAR)
        key = (place.ip, place.is_return_address, near)
        if key not in self._returns:
            state = SymbolicState(may_have_pushed=not place.is_return_address)
            for number, distance in near:
                state = state.with_register(number, value(SP, distance))
            limit = _LIMIT if self._followed < _LIMIT_OF_WALK else _THEREAFTER
            flow = ControlFlow(self._code, place.ip, state, self._callees.after_call, limit=limit)
            found = self._returns[key] = flow.first_return()
            self._followed += len(flow.states)
            if found is None and limit < _LIMIT:
                self._cut_short.append(key)
        return self._returns[key]

    def is_straight(self, address: int) -> bool:
        """Say whether the code at `address` runs to its `ret` without a branch or a call, as in an epilogue."""
        for _ in range(_STRAIGHT):
            instruction = self._code.at(address)
            if instruction is None or instruction.op in _NOT_STRAIGHT:
                return False
            if instruction.op is Opcode.RETURN:
                return True
            address = instruction.end
        return False

    def caller(self, place: Place) -> Caller | None:
        """Return the caller of the frame at `place`, or None if no `ret` or no return address is found."""
        if place.is_in_helper:
            return None
        if place.is_return_address and self._code.is_function_start(place.ip):
            return None  # the call never returns, and the next function follows it
        found = self.nearest_return(place)
        memory, gpr = self._code.memory, place.registers.gpr
        if found is None or found.target is None:
            return None
        sp = address_of(found.state.sp, gpr)
        return_address = evaluate(found.target, gpr, memory)
        if sp is None or return_address is None:
            return None
        # A helper like `__SEH_epilog` holds its return address in a register, and pushes it just before its `ret`.
        slot = address_of(found.target, gpr) if found.target.is_word else None
        uses_sp = found.state.sp is not None and found.state.sp.base == SP
        registers: list[int | None] = [None] * 8
        for number in X86.nonvolatile:
            registers[number] = evaluate(found.state.registers[number], gpr, memory)
        registers[SP] = sp
        doubt = found.state.doubt + (1 if uses_sp and not place.is_sp_exact else 0)
        return Caller(
            (sp - found.popped - 4) & MASK if slot is None else slot,
            return_address,
            (sp - found.popped) & MASK,
            found.popped,
            tuple(registers),
            doubt=doubt,
            is_in_register=slot is None,
            is_past_helper=self.is_past_helper(return_address),
        )

    def is_past_helper(self, return_address: int) -> bool:
        """Say whether the instruction before `return_address` calls a helper that changes its caller's frame."""
        call = self._code.at(return_address - 5)
        target = self._code.target(call) if call is not None and call.op is Opcode.CALL and call.size == 5 else None
        return target is not None and self._callees.at(target).kind is not CalleeKind.ORDINARY
