# SPDX-License-Identifier: Apache-2.0
"""Every return address of every forged stack, overwritten one at a time.

A buffer overrun leaves such stacks. What was known before is kept. Only a walk that reaches the outermost frame over no
lost return address is complete, and where frames were left out the next one is labelled as a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from tests.support.forged_stacks import ForgedStack, forged_stacks
from throwstack.core.frames import Frame, Trust
from throwstack.core.registers import Arch

GARBAGE = 0x41414141
STACKS = [
    pytest.param(stack, has_symbols, id=f"{stack.name}, {'symbols' if has_symbols else 'exports'}")
    for stack in forged_stacks()
    for has_symbols in ((False, True) if stack.arch is Arch.X86 else (True,))
]


def places(frames: Sequence[Frame]) -> list[tuple[int, int]]:
    return [(frame.ip, frame.child_sp) for frame in frames]


def skips(frames: Sequence[Frame], truth: list[tuple[int, int]]) -> list[Frame]:
    """Return the frames that are not guessed, and that have not called the frame before them."""
    callers = dict(pairwise(truth))
    found = zip(pairwise(places(frames)), frames[1:], strict=True)
    return [
        frame for (callee, caller), frame in found if callers.get(callee) != caller and frame.trust is not Trust.SCAN
    ]


@pytest.mark.parametrize(("stack", "has_symbols"), STACKS)
def test_each_return_address_overwritten_in_turn(stack: ForgedStack, has_symbols: bool) -> None:
    truth = [(frame.ip, frame.child_sp) for frame in stack.frames]
    whole = stack.walk(has_symbols=has_symbols)
    assert places(whole.frames) == truth
    assert whole.is_complete
    for index, frame in enumerate(whole.frames[:-1]):
        for value in (0, GARBAGE):
            assert frame.return_slot is not None
            changed = {frame.return_slot: value.to_bytes(stack.arch.pointer_size, "little")}
            walk = stack.walk(changed, has_symbols=has_symbols)
            at = f"{stack.frames[index].symbol} returns to {value:#x}"
            assert places(walk.frames[:index]) == truth[:index], at
            assert walk.frames[index].ip == frame.ip, at
            if whole.frames[index + 1].is_interrupted:
                # The word is no return address but the ip of interrupted code, in its CONTEXT or machine frame. The
                # thread seems to have been at `value`, and the rest of its stack is as it was.
                assert walk.frames[index + 1].ip == value, at
                assert not walk.is_complete or places(walk.frames)[-1] == truth[-1], at
                assert not skips(walk.frames[index + 2 :], truth), at
            else:
                assert not walk.is_complete, at
                assert not skips([frame, *walk.frames[index + 1 :]], truth), at


def test_the_return_address_of_a_start_routine_may_be_anything() -> None:
    for stack in forged_stacks():
        slot = stack.walk().frames[-1].return_slot
        assert slot is not None
        changed = {slot: GARBAGE.to_bytes(stack.arch.pointer_size, "little")}
        assert stack.walk(changed).is_complete, stack.name
