# SPDX-License-Identifier: Apache-2.0
"""Finds the caller of a thread that runs where no code is, if ebp belongs to a function further out.

Example: a function of a DLL has called another one, and meanwhile the DLL was unloaded. The thread returns into the
unloaded code, and faults. Nothing says what that code has on the stack. Compiled without frame pointers, it has left
ebp as it was, so that ebp leads to a function which may be many frames further out:

    esp ->  locals of the unloaded function     (unknown, they may hold return addresses of earlier calls)
            return address in `through`         the caller
            frames of `through`, `plain`, …     none of them changes ebp
    ebp ->  saved ebp                           of a function that has a frame pointer
            return address of that function

The step by ebp would leave out all frames between. The caller is the nearest return address on the stack from which the
walk leads on to exactly that pair. The walk goes by esp alone: the `leave; ret` of any function leads from ebp to that
pair, also of one that returned long ago and has left its return address on the stack. It is a guess, and labelled so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from throwstack.core.frames import Trust
from throwstack.core.registers import BP
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.candidates import Candidate, tier

_MOST_TRIED = 16
_MOST_STEPS = 64
_NOTE = "the walk from here leads to the frame of ebp"

FindCaller = Callable[[Place], "Candidate | None"]
NextPlace = Callable[[Caller], Place]


def nearer_caller(
    place: Place, by_frame_pointer: Candidate, scanned: Iterable[Candidate], find: FindCaller, following: NextPlace
) -> Candidate | None:
    """Return the nearest of `scanned` from which the walk leads on to the frame of ebp, or None.

    `place` is the innermost frame, whose ip is in no code. `by_frame_pointer` is the caller that ebp leads to.
    `scanned` are the return addresses found by a scan of the stack, lowest first. `find` returns the caller of a frame,
    and `following` makes a `Place` of it.
    """
    slot = by_frame_pointer.caller.slot
    steps = _MOST_STEPS
    for tried, candidate in enumerate(scanned):
        if tried == _MOST_TRIED or candidate.caller.slot >= slot:
            break
        if tier(candidate, ()) is None:
            continue
        at = following(_with_bp(candidate.caller, None))
        while steps:
            steps -= 1
            found = find(at)
            if found is None or not _is_sure(found) or found.caller.slot > slot:
                break
            if found.caller.slot == slot:
                return replace(candidate, caller=_with_bp(candidate.caller, place.registers.bp), note=_NOTE)
            at = following(found.caller)
    return None


def _with_bp(caller: Caller, bp: int | None) -> Caller:
    gpr = caller.gpr
    return replace(caller, gpr=(*gpr[:BP], bp, *gpr[BP + 1 :]))


def _is_sure(found: Candidate) -> bool:
    return found.trust is not Trust.SCAN and found.caller.is_consistent
