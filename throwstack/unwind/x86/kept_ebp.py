# SPDX-License-Identifier: Apache-2.0
"""Steps by ebp out of code outside the images whose source says that it keeps a frame pointer.

.NET's JIT compiler gives most x86 methods such a frame, and their GC info says so: `push ebp; mov ebp, esp` first, and
ebp stays until the epilogue. So the caller is known without decoding the function. Only code that was interrupted in
these two instructions has not set ebp yet; other rules find its caller.

What was called before the return address does not count: .NET calls its methods through stubs, which it changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.frames import StackBounds, Trust
from throwstack.core.memory import MemoryUnreadable
from throwstack.unwind.code_outside import CodeOutside, OutsideFunction
from throwstack.unwind.x86 import frame_data
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.candidates import Candidate, Rule
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.decode import MASK
from throwstack.unwind.x86.fixed_layouts import caller_at
from throwstack.unwind.x86.return_address import Fit, ReturnAddresses

_PROLOGUE = bytes.fromhex("55 8b ec")
"""`push ebp; mov ebp, esp`."""


@dataclass(frozen=True, slots=True)
class KeptEbp:
    """Finds callers of code that is known to keep ebp, in one address space."""

    code: Code
    outside: CodeOutside
    callees: Callees
    calls: ReturnAddresses

    def candidate(self, place: Place, stack: StackBounds) -> Candidate | None:
        """Return the caller to which ebp leads, or None if nothing says that the function of `place` keeps ebp.

        The result is also None if ebp does not lead up `stack` to the address after a call.
        """
        bp = place.registers.bp
        if bp is None or bp < place.lowest_sp or not stack.contains(bp, 8):
            return None
        known = self._known(place)
        if known is None:
            return None
        caller = self._caller(place, bp, known)
        if caller is None or not self.calls.is_return_address(caller.return_address):
            return None
        note = "" if known.name else known.source
        return Candidate(Rule.GENERATED_CHAIN, caller, Fit.POSSIBLE, note, trust=Trust.FRAME_POINTER)

    def _caller(self, place: Place, bp: int, known: OutsideFunction) -> Caller | None:
        """Return the caller by ebp, with the registers that the function has saved as far as the source knows them."""
        memory, data = self.code.memory, known.frame
        if data is None:
            return caller_at(bp, self.callees.popped_bytes(place.ip), memory)
        popped = self.callees.popped_bytes(place.ip) if data.removed is None else data.removed
        for found in frame_data.callers(data, place, 0, memory, popped):
            if isinstance(found, frame_data.RecordedCaller) and found.caller.slot == (bp + 4) & MASK:
                return found.caller
        return caller_at(bp, popped, memory)

    def _known(self, place: Place) -> OutsideFunction | None:
        """Return what is known of the function of `place`, if that is that ebp is set and kept there."""
        address = place.ip - (1 if place.is_return_address else 0)
        if not self.code.is_outside(address):
            return None
        known = self.outside.function(address)
        is_kept = known is not None and known.has_frame_pointer
        return known if is_kept and (place.is_return_address or not self._is_in_prologue(place.ip)) else None

    def _is_in_prologue(self, ip: int) -> bool:
        """Say whether ebp is not set yet at `ip`: the instruction there, or before it, is the first of the prologue."""
        try:
            return _PROLOGUE in (self.code.memory.read(ip, 3), self.code.memory.read(ip - 1, 3))
        except MemoryUnreadable:
            return False
