# SPDX-License-Identifier: Apache-2.0
"""Puts the judgement on a frame's candidates into lines of the trace (see `docs/tracing.md`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from throwstack.names.symbols import Symbols
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.candidates import QUESTIONS, Candidate, Rule, answers, tier


def lines(place: Place, candidates: Sequence[Candidate], found: Candidate | None, symbols: Symbols) -> Iterator[str]:
    """Yield a line for the frame at `place`, one for each of its candidates, and one for the caller that was taken.

    `candidates` are in the order in which the rules found them. `found` is the candidate that was taken. It may have
    been completed from others.
    """
    name = symbols.name(place.ip, is_return_address=place.is_return_address)
    known = "" if place.is_sp_exact else " or higher"
    yield f"frame {name} at {place.ip:#x}, esp {place.registers.sp:#x}{known}"
    for candidate in candidates:
        yield f"  {_described(candidate, candidates, symbols)}"
    if found is None:
        yield "  taken: none, because no candidate is believed"
        return
    taken = f"  taken: {found.rule.name}, slot {found.caller.slot:#x}, label {found.trust.value}"
    note = found.note if found.rule is Rule.SCAN else ""
    yield f"{taken}; {found.gap or note or _why(candidates, found)}"


def _described(candidate: Candidate, candidates: Sequence[Candidate], symbols: Symbols) -> str:
    caller, believed = candidate.caller, tier(candidate, candidates)
    name = symbols.name(caller.return_address, is_return_address=True)
    parts = [
        f"{candidate.rule.name}: slot {caller.slot:#x} -> {name}",
        f"fit {candidate.fit.name}",
        f"tier {believed.name}" if believed is not None else "not believed",
    ]
    if caller.doubt:
        parts.append(f"doubt {caller.doubt}")
    if not caller.is_consistent:
        parts.append("inconsistent")
    if caller.is_past_helper:
        parts.append("past a helper")
    return ", ".join(parts)


def _why(candidates: Sequence[Candidate], found: Candidate) -> str:
    """Return the first question that puts `found` before the best candidate with another slot."""
    mine = answers(found, candidates)
    others = [answers(other, candidates) for other in candidates if other.caller.slot != found.caller.slot]
    rivals = [rival for rival in others if rival is not None]
    if mine is None or not rivals:
        return "no other slot is believed"
    for question, own, rival in zip(QUESTIONS, mine, min(rivals), strict=True):
        if own != rival:
            return f"decided by {question}"
    return "found first"
