# SPDX-License-Identifier: Apache-2.0
"""Which caller further out is taken for that of a frame whose return address was overwritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unwind.x86.machine import words
from throwstack.core.frames import StackBounds, Trust
from throwstack.core.memory import memory_of
from throwstack.core.registers import BP, Arch, Registers
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.candidates import Candidate, Rule
from throwstack.unwind.x86.lost_return_address import CallersFurtherOut
from throwstack.unwind.x86.return_address import Fit

LOW = 0x12F000
STACK = StackBounds(LOW, LOW + 0x1000)
GONE = LOW + 0x10
"""The slot of the word that was overwritten."""
PAIR = LOW + 0x800
"""A saved ebp and a return address."""
RETURN, IN_STUB = 0x401000, 0x402000
HERE = Place(Registers.named(Arch.X86, {"eip": 0x403000, "esp": LOW}))


class Calls:
    """The calls before return addresses."""

    def is_in_stub(self, address: int) -> bool:
        return address == IN_STUB

    def is_return_address(self, address: int) -> bool:
        return address == RETURN


def found_at(slot: int, *, bp: int | None = None, rule: Rule = Rule.SCAN, word: int = RETURN, **more: Any) -> Candidate:
    registers: list[int | None] = [None] * 8
    registers[BP] = bp
    fit = more.pop("fit", Fit.POSSIBLE)
    return Candidate(rule, Caller(slot, word, slot + 4, 0, tuple(registers), **more), fit)


def gone(bp: int | None = None, doubt: int = 0) -> Candidate:
    return found_at(GONE, rule=Rule.FUNCTION, word=0, fit=Fit.ZERO, bp=bp, doubt=doubt)


def taken(
    lost: Candidate, from_frame: tuple[Candidate, ...] = (), above: tuple[Candidate, ...] = (), *, pair: int = PAIR
) -> Candidate:
    """What is taken, if a scan from the frame and one from above the overwritten word find these."""
    before = pair - LOW
    memory = memory_of({LOW: bytes(before) + words(0, RETURN).ljust(0x2000 - before, b"\0")})

    def scan(start: int | None) -> Iterator[Candidate]:
        assert start in {None, GONE + 4}
        return iter(from_frame if start is None else above)

    further: Callable[..., Candidate] = CallersFurtherOut(memory, Calls()).after  # type: ignore[arg-type]
    return further(HERE, lost, [lost], scan, STACK)


def test_a_return_address_near_a_doubtful_slot_is_the_frame_s_own() -> None:
    near = found_at(LOW + 8, fit=Fit.CONFIRMED)
    found = taken(gone(doubt=1), (near,), (found_at(LOW + 0x20),))
    assert (found.caller.slot, found.gap) == (LOW + 8, "")
    assert taken(gone(), (near,), (found_at(LOW + 0x20),)).caller.slot == LOW + 0x20


@pytest.mark.parametrize("near", [(), (found_at(LOW + 8, fit=Fit.CONTRADICTED),)])
def test_without_one_the_next_return_address_above_is_taken(near: tuple[Candidate, ...]) -> None:
    found = taken(gone(doubt=1), near, (found_at(LOW + 0x20),))
    assert found.caller.slot == LOW + 0x20
    assert f"{GONE:#x} was overwritten" in found.gap


def test_what_an_earlier_system_call_left_is_passed_over() -> None:
    above = found_at(LOW + 0x20, word=IN_STUB), found_at(LOW + 0x30)
    assert taken(gone(), above=above).caller.slot == LOW + 0x30


@pytest.mark.parametrize(
    ("bp", "pair", "is_taken"),
    [
        *((PAIR, PAIR, True), (GONE + 4, GONE + 4, True), (STACK.base - 8, STACK.base - 8, True)),
        *((PAIR + 8, PAIR, False), (None, PAIR, False)),  # no return address; ebp is not known
        *((GONE, GONE, False), (GONE - 4, GONE - 4, False)),  # the frame of the lost return address itself
        *((end, end, False) for end in (STACK.base - 7, STACK.base - 4, STACK.base)),  # not wholly on the stack
    ],
)
def test_a_saved_ebp_leads_over_a_large_frame(bp: int | None, pair: int, *, is_taken: bool) -> None:
    found = taken(gone(bp), pair=pair)
    assert (found.rule is Rule.FRAME_POINTER) is is_taken
    assert (found.trust, found.fit) == (Trust.SCAN, Fit.POSSIBLE if is_taken else Fit.ZERO)
    assert f"{GONE:#x} was overwritten" in found.gap


def test_a_saved_ebp_below_the_overwritten_word_leads_nowhere() -> None:
    """Both pairs are sound: that at ebp is taken only if it is further up."""
    lost = found_at(PAIR + 8, rule=Rule.FUNCTION, word=0, fit=Fit.ZERO, bp=PAIR)
    memory = memory_of({PAIR: words(0, RETURN)})
    further: Callable[..., Candidate] = CallersFurtherOut(memory, Calls()).after  # type: ignore[arg-type]
    assert further(HERE, lost, [lost], lambda _: (), STACK).fit is Fit.ZERO
