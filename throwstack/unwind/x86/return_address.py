# SPDX-License-Identifier: Apache-2.0
"""Grades how well a word of the stack serves as the return address of a frame.

A return address is right after a call instruction. If that instruction is known to call the function of the frame, the
word is almost certainly the frame's return address. If it calls another function, the word is left over from an earlier
call.

There are exceptions. A frame in code outside the images may have been reached by a hook: `call ntdll!NtReadFile` went
to a copy of the stub in private memory, because the first bytes of the function were replaced by a jump. And a system
call stub calls only the gate to the kernel, so that no frame which has made a call can return to it. After a system
call the return address in its stub stays on the stack, and looks like that of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import SP
from throwstack.unwind.after_call import LONGEST_CALL, calls_before
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.decode import MASK, Immediate, Indirect
from throwstack.unwind.x86.function_starts import FunctionStarts
from throwstack.unwind.x86.prologue import Prologues
from throwstack.unwind.x86.symbolic_state import register_of
from throwstack.unwind.x86.system_call_stub import return_in_stub_before


class Fit(Enum):
    """How well a word of the stack serves as the return address of a frame, best first."""

    CONFIRMED = "after a call of the frame's function, in the slot where that function has its return address"
    CALLS_FUNCTION = "after a call of the frame's function"
    POSSIBLE = "after a call of an unknown function"
    OUTSIDE = "after a call of an unknown function, in memory outside the images whose protection is not known"
    DIVERTED = "after a call of a function from which a hook can have led to this frame outside the images"
    OUTERMOST = "zero: the start of the thread"
    ZERO = "zero, but far from the start of the stack"
    UNREADABLE = "in code that cannot be read"
    CONTRADICTED = "after a call of another function, or in another slot than the function's return address"
    NOT_A_RETURN = "in code, but not after a call"
    NOT_CODE = "not in code"


BELIEVED = (Fit.CONFIRMED, Fit.CALLS_FUNCTION, Fit.POSSIBLE, Fit.OUTSIDE)
CERTAIN = (Fit.CONFIRMED, Fit.CALLS_FUNCTION)


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

    __slots__ = ("_code", "_function_starts", "_prologues", "_sites", "_stubs")

    def __init__(self, code: Code, prologues: Prologues, starts: FunctionStarts) -> None:
        """`code` is the address space's code, in which the calls before return addresses are decoded.

        `prologues` and `starts` are used to decide whether a frame belongs to the function that a call calls.
        `prologues` follow that function's code, and `starts` guess where functions begin if there are no symbols.
        """
        self._code = code
        self._prologues = prologues
        self._function_starts = starts
        self._sites: dict[int, tuple[CallSite, ...]] = {}
        self._stubs: dict[int, bool] = {}

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
        if not self._code.is_code(address - 1):
            return ()
        sites: list[CallSite] = []
        for start in calls_before(self._code.memory, address):
            call = self._code.at(start)
            if call is None:
                continue
            target, operand = self._code.target(call), call.operand(0)
            if target is None and isinstance(operand, Immediate):
                if not self._is_generated(call.address):
                    continue
                target = operand.value & MASK
            sites.append(CallSite(call.address, target))
        return tuple(sites)

    def _is_generated(self, address: int) -> bool:
        """Say whether `address` is in code outside the images. Its functions may have been freed since it called them.

        In an image, a direct call of what is not code is no call: the bytes before the address are something else.
        """
        return self._code.is_outside(address) and self._code.is_certainly_code(address)

    def is_return_address(self, word: int) -> bool:
        """Say whether `word` is the address after a call, in memory that is known to be code."""
        return self._code.is_certainly_code(word - 1) and bool(self.calls_before(word))

    def is_in_stub(self, return_address: int) -> bool:
        """Say whether `return_address` is in a system call stub, where the gate to the kernel returns to."""
        known = self._stubs.get(return_address)
        if known is None:
            known = self._stubs[return_address] = return_in_stub_before(self._code, return_address)
        return known

    def calls_place(self, return_address: int, place: Place) -> bool:
        """Say whether a call before `return_address`, made with the registers of `place`, goes to exactly its ip.

        That is so if the thread has run no instruction since the call, as after a call through a bad pointer.
        """
        return place.ip in self.targets(return_address, place)

    def targets(self, return_address: int, place: Place) -> set[int]:
        """Return where the calls before `return_address` go, if they were made with the registers of `place`."""
        sites = self.calls_before(return_address)
        found = {target for site in sites for target in (site.target, self._called(site, place))}
        return {target for target in found if target is not None}

    def _called(self, site: CallSite, place: Place) -> int | None:
        call, gpr = self._code.at(site.address), place.registers.gpr
        operand = None if call is None else call.operand(0)
        number = register_of(operand)
        if number is not None:
            return gpr[number]
        if not isinstance(operand, Indirect) or operand.has_segment:
            return None
        address = operand.displacement
        for register, scale in ((operand.base, 1), (operand.index, operand.scale)):
            known = 0 if register is None else gpr[register]
            if known is None:
                return None
            address += scale * (known + (4 if register == SP else 0))  # the call has pushed its return address
        try:
            return self._code.memory.u32(address & MASK)
        except MemoryUnreadable:
            return None

    def fit(self, place: Place, slot: int, return_address: int) -> Fit:
        """Return how well the word `return_address` at `slot` serves as the return address of the frame at `place`."""
        if return_address == 0:
            return Fit.OUTERMOST
        if not self._code.is_code(return_address - 1):
            return Fit.NOT_CODE
        sites = self.calls_before(return_address)
        if not sites and self._code.is_outside(return_address - 1):
            return Fit.NOT_CODE
        if not sites:
            is_readable = self._code.memory.is_readable(return_address - LONGEST_CALL, LONGEST_CALL)
            return Fit.NOT_A_RETURN if is_readable else Fit.UNREADABLE
        if place.is_return_address and self.is_in_stub(return_address):
            return Fit.CONTRADICTED
        fit = min((self._fit_site(place, slot, site) for site in sites), key=_ORDER.__getitem__)
        is_certain = fit is not Fit.POSSIBLE or self._code.is_certainly_code(return_address - 1)
        return fit if is_certain else Fit.OUTSIDE

    def _fit_site(self, place: Place, slot: int, site: CallSite) -> Fit:
        if site.target is None:
            return Fit.POSSIBLE
        reaches = self._prologues.reaches(site.target, place)
        if reaches:
            caller = self._prologues.caller(site.target, place)
            if caller is None or caller.doubt or not caller.is_consistent:
                return Fit.CALLS_FUNCTION
            return Fit.CONFIRMED if caller.slot == slot else Fit.CONTRADICTED
        unseen = self._fit_outside(place, site.target)
        if unseen is not None:
            return unseen
        # The code of a function does not lead to its exception handlers and funclets: tables do. So a place that is
        # not reached from the start of the called function may belong to it all the same, and the symbols say so.
        targets = {site.target, self._code.after_thunks(site.target)}
        start = self._code.function_start(place.ip, is_return_address=place.is_return_address)
        if start is not None:
            return Fit.CALLS_FUNCTION if start in targets else Fit.POSSIBLE if reaches is None else Fit.CONTRADICTED
        is_nearest = self._function_starts.nearest(place.ip - (1 if place.is_return_address else 0)) in targets
        return Fit.POSSIBLE if reaches is None or is_nearest else Fit.CONTRADICTED

    def _fit_outside(self, place: Place, target: int) -> Fit | None:
        """Return how well a return address after a call of `target` serves a frame outside the images.

        The result is None for a frame in an image. `target` is known not to reach the frame by code that can be read.
        """
        if not self._code.is_code(place.ip):
            # No code can say how the thread got there. Two ways lead through a function that was called directly. An
            # adjustor thunk (`sub ecx, 8; jmp [table]`) jumps to a method whose DLL was unloaded. And a function whose
            # own return address was overwritten returns to nowhere, so that the next word on the stack which is after
            # a call belongs to a frame that called some function of its own.
            return Fit.POSSIBLE
        return Fit.DIVERTED if self._code.is_outside(place.ip) and not self._code.is_outside(target) else None


_ORDER = {fit: rank for rank, fit in enumerate(Fit)}
