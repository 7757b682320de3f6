# SPDX-License-Identifier: Apache-2.0
"""A frame from the code that is still to run: followed from where the thread stands to the function's `ret`.

Needs no function start, but esp to the byte; a function that never returns has no answer.
"""

from __future__ import annotations

from throwstack.memory import MemoryUnreadable
from throwstack.registers import SP, X86_NONVOLATILE
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.flow import Flow, Return
from throwstack.unwind.x86.prologue import Caller, Place
from throwstack.unwind.x86.restore import address_of, evaluate
from throwstack.unwind.x86.state import State

_LIMIT = 2000


class Forward:
    """Ways out of functions, each looked for once."""

    __slots__ = ("_callees", "_code", "_returns")

    def __init__(self, code: Code, callees: Callees) -> None:
        """Follow code in `code`."""
        self._code = code
        self._callees = callees
        self._returns: dict[int, Return | None] = {}

    def way_out(self, address: int) -> Return | None:
        """Return the least doubtful `ret` that `address` leads to, or None."""
        if address not in self._returns:
            flow = Flow(self._code, address, State(), self._callees.after_call, limit=_LIMIT)
            self._returns[address] = flow.first_return()
        return self._returns[address]

    def caller(self, place: Place) -> Caller | None:
        """Return the caller of the frame at `place`, or None."""
        if place.call_sp is not None and self._code.is_function_start(place.ip):
            return None  # behind a call that never returns: the next function
        found = self.way_out(place.ip)
        if found is None or found.target is None or not found.target.is_word:
            return None
        memory, gpr = self._code.memory, place.registers.gpr
        uses_sp = found.target.base == SP
        slot = address_of(found.target, gpr)
        sp = address_of(found.state.sp, gpr)
        if slot is None or sp is None or found.target.base >= len(gpr):
            return None
        try:
            return_address = memory.u32(slot)
        except MemoryUnreadable:
            return None
        registers: list[int | None] = [None] * 8
        for number in X86_NONVOLATILE:
            registers[number] = evaluate(found.state.registers[number], gpr, memory)
        registers[SP] = sp
        doubt = found.state.doubt + (1 if uses_sp and not place.is_sp_exact else 0)
        return Caller(slot, return_address, sp - found.popped, found.popped, tuple(registers), doubt=doubt)
