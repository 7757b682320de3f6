# SPDX-License-Identifier: Apache-2.0
"""Grades how well a word of the stack serves as the return address of a frame.

A return address is right after a call instruction. If that instruction is known to call the function of the frame, the
word is almost certainly the frame's return address. If it calls another function, the word is left over from an earlier
call.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from throwstack.unwind.after_call import LONGEST_CALL, calls_before
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.decode import Immediate, Opcode
from throwstack.unwind.x86.function_starts import FunctionStarts
from throwstack.unwind.x86.prologue import Prologues


class Fit(Enum):
    """How well a word of the stack serves as the return address of a frame, best first."""

    CONFIRMED = "after a call of the frame's function, in the slot where that function has its return address"
    CALLS_FUNCTION = "after a call of the frame's function"
    POSSIBLE = "after a call of an unknown function"
    OUTERMOST = "zero: the start of the thread"
    ZERO = "zero, but far from the start of the stack"
    UNREADABLE = "in code that cannot be read"
    CONTRADICTED = "after a call of another function, or in another slot than the function's return address"
    NOT_A_RETURN = "in code, but not after a call"
    NOT_CODE = "not in code"


@dataclass(frozen=True, slots=True)
class CallSite:
    """A call instruction that may have pushed a return address.

    `address` is the address of the instruction. `target` is the address that it calls, directly or through an import,
    or None if that is not known.
    """

    address: int
    target: int | None


class ReturnAddresses:
    """Finds the calls before return addresses, and grades words of the stack as return addresses of frames."""

    __slots__ = ("_code", "_function_starts", "_prologues", "_sites")

    def __init__(self, code: Code, prologues: Prologues, starts: FunctionStarts) -> None:
        """`code` is the address space's code, in which the calls before return addresses are decoded.

        `prologues` and `starts` are used to decide whether a frame belongs to the function that a call calls.
        `prologues` follow that function's code, and `starts` guess where functions begin if there are no symbols.
        """
        self._code = code
        self._prologues = prologues
        self._function_starts = starts
        self._sites: dict[int, tuple[CallSite, ...]] = {}

    def calls_before(self, address: int) -> tuple[CallSite, ...]:
        """Return the call instructions that may end right before `address`.

        There can be more than one, because the bytes before an address can be read as instructions of different lengths
        (see `throwstack.unwind.after_call`).
        """
        sites = self._sites.get(address)
        if sites is None:
            sites = self._sites[address] = self._decode_before(address)
        return sites

    def _decode_before(self, address: int) -> tuple[CallSite, ...]:
        if not self._code.is_code(address):
            return ()
        sites: list[CallSite] = []
        for start in calls_before(self._code.memory, address):
            call = self._code.at(start)
            if call is None or call.op is not Opcode.CALL or call.end != address:
                continue
            target = self._code.target(call)
            if target is None and isinstance(call.operand(0), Immediate):
                continue
            sites.append(CallSite(call.address, target))
        return tuple(sites)

    def fit(self, place: Place, slot: int, return_address: int) -> Fit:
        """Return how well the word `return_address` at `slot` serves as the return address of the frame at `place`."""
        if return_address == 0:
            return Fit.OUTERMOST
        if not self._code.is_code(return_address):
            return Fit.NOT_CODE
        sites = self.calls_before(return_address)
        if not sites:
            is_readable = self._code.memory.is_readable(return_address - LONGEST_CALL, LONGEST_CALL)
            return Fit.NOT_A_RETURN if is_readable else Fit.UNREADABLE
        return min((self._fit_site(place, slot, site) for site in sites), key=_ORDER.__getitem__)

    def _fit_site(self, place: Place, slot: int, site: CallSite) -> Fit:
        if site.target is None:
            return Fit.POSSIBLE
        reaches = self._prologues.reaches(site.target, place)
        if reaches:
            caller = self._prologues.caller(site.target, place)
            if caller is None or caller.doubt or not caller.is_consistent:
                return Fit.CALLS_FUNCTION
            return Fit.CONFIRMED if caller.slot == slot else Fit.CONTRADICTED
        # The code of a function does not lead to its exception handlers and funclets: tables do. So a place that is
        # not reached from the start of the called function may belong to it all the same, and the symbols say so.
        targets = {site.target, self._code.after_thunks(site.target)}
        start = self._code.function_start(place.ip, is_return_address=place.is_return_address)
        if start is not None:
            return Fit.CALLS_FUNCTION if start in targets else Fit.POSSIBLE if reaches is None else Fit.CONTRADICTED
        is_nearest = self._function_starts.nearest(place.ip - (1 if place.is_return_address else 0)) in targets
        return Fit.POSSIBLE if reaches is None or is_nearest else Fit.CONTRADICTED


_ORDER = {fit: rank for rank, fit in enumerate(Fit)}
