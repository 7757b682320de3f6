# SPDX-License-Identifier: Apache-2.0
"""What is taken for the caller of a frame whose return address was lost, and how the walk says so.

There are three cases:

- A buffer overrun wrote zeros over the return address: the code of the function leads to a word that is 0.
- It wrote something else, and the word is in no code. Then the scan or ebp gives the caller. For example:

      esp+8:   41414141            the code of the function says that its return address is here
      esp+40h: BaseThreadStart+34h    ebp leads here

- The thread runs where no code is, and nothing shows that a call led there (see `nearer_caller`).

The caller that is taken is one further out, and the frames between are missing. It is a guess, as its label says. Its
`gap` says what was lost, so that no walk over it counts as complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from throwstack.core.frames import StackBounds, Trust
from throwstack.core.memory import Memory
from throwstack.core.registers import BP
from throwstack.unwind.thread_start import overwritten
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.candidates import Candidate, Rule, best, completed
from throwstack.unwind.x86.fixed_layouts import caller_at
from throwstack.unwind.x86.return_address import CERTAIN, Fit, ReturnAddresses

_LOST = "after a return address that was overwritten"
_BELOW = "below a return address that was overwritten"
_KNOWS_FUNCTION = frozenset({Rule.FUNCTION, Rule.EPILOGUE})
_FOLLOWS_CODE = frozenset({Rule.FUNCTION, Rule.EPILOGUE, Rule.FORWARD, Rule.GUESSED_START})

Scan = Callable[[int | None], Iterable[Candidate]]
"""Returns the return addresses that a scan of the stack finds, lowest first: from an address on, or from the frame."""


def lost(found: Candidate | None, candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate that leads to an overwritten return address, instead of which `found` is no caller.

    `found` is the best of `candidates`, or None if none is believed. It is that candidate itself if its word is 0. If
    it says by a weak rule that the frame is the first one of the thread, the code of the function may say that the
    frame had a caller.
    """
    if found is None:
        return _overwritten(candidates)
    if found.fit is Fit.ZERO:
        return found
    is_weak = found.fit is Fit.OUTERMOST and found.rule in {Rule.FRAME_POINTER, Rule.FRAME_DATA_SEARCH}
    return _overwritten(candidates, found.caller.slot) if is_weak else None


@dataclass(frozen=True, slots=True)
class CallersFurtherOut:
    """Finds callers further out, in one address space: `calls` are the calls before its return addresses."""

    memory: Memory
    calls: ReturnAddresses

    def after(
        self, place: Place, gone: Candidate, candidates: list[Candidate], scan: Scan, stack: StackBounds
    ) -> Candidate:
        """Return the next frame whose return address is still there, if that of the frame at `place` was overwritten.

        `gone` leads to the word that was overwritten, and is one of `candidates`. If its slot is a guess, a return
        address of a call of the frame's function may be near it. Otherwise the frame that the return address led to is
        lost. The next return address up the stack is taken. Any call before it is good enough, because it was made by a
        function further out, and not for the function of `place`. If a large frame is in between, the saved ebp below
        the overwritten word leads over it. If there is nothing, the result is `gone`, with the fit `Fit.ZERO`.
        """
        caller = gone.caller
        if caller.doubt:
            scanned = list(scan(None))
            candidates += scanned
            better = best(scanned)
            if better is not None:
                return completed(place, better, candidates)
        gap, bp = overwritten(caller.slot, caller.return_address), caller.gpr[BP]
        for other in scan(caller.slot + 4):
            if not self.calls.is_in_stub(other.caller.return_address):
                return replace(other, gap=gap, note=_LOST)
        if bp is not None and bp > caller.slot and stack.contains(bp, 8):
            saved = caller_at(bp, None, self.memory)
            if saved is not None and self.calls.is_return_address(saved.return_address):
                return Candidate(Rule.FRAME_POINTER, saved, Fit.POSSIBLE, _LOST, gap=gap)
        return replace(gone, fit=Fit.ZERO, gap=gap)


def with_gap(found: Candidate, candidates: Sequence[Candidate]) -> Candidate:
    """Return `found`, the best of `candidates`; if it is a guess instead of an overwritten return address, it says so.

    A word was overwritten if the code of the function leads to it, and it is 0 or in no code. The slot of `found` is
    further up the stack. Or it is further down, among the locals of the frame: an earlier call has left it there. Then
    only code that is certainly the function's own says so.
    """
    slot = found.caller.slot
    if found.trust is not Trust.SCAN or found.fit in CERTAIN or found.gap:
        return found
    gone, note = _overwritten(candidates, slot), _LOST
    if gone is None:
        known = [other for other in candidates if other.rule in _KNOWS_FUNCTION and other.caller.slot > slot]
        gone, note = _overwritten(known), _BELOW
    if gone is None:
        return found
    gap = overwritten(gone.caller.slot, gone.caller.return_address)
    return replace(found, gap=gap, note=found.note or note)


def _overwritten(candidates: Sequence[Candidate], below: int = 1 << 32) -> Candidate | None:
    for other in candidates:
        caller = other.caller
        is_exact = other.rule in _FOLLOWS_CODE and caller.is_consistent and not caller.doubt
        is_gone = other.fit in {Fit.ZERO, Fit.NOT_CODE} and not caller.is_in_register
        if is_exact and is_gone and caller.slot < below:
            return other
    return None
