# SPDX-License-Identifier: Apache-2.0
"""A return address of 0: the outermost frame's, or one that was overwritten."""

from __future__ import annotations

import struct

import pytest

from throwstack.core.frames import StackBounds
from throwstack.core.memory import Memory, memory_of
from throwstack.core.regions import Region, RegionKind
from throwstack.images.image import ImageMap
from throwstack.images.modules import ModuleMap
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.thread_start import StackEnds, overwritten

CALLER = 0x401234
LOW, BASE = 0x10000, 0x18000


class FiberStack:
    """One region: the stack, LOW to BASE."""

    def find(self, address: int) -> Region | None:
        return Region(LOW, BASE, RegionKind.PRIVATE, is_executable=False) if LOW <= address < BASE else None


def stack_ends(memory: Memory, size: int, *, knows_regions: bool) -> StackEnds:
    outside = CodeOutside(ImageMap(memory, ModuleMap([])), FiberStack() if knows_regions else None)
    return StackEnds(memory, outside, size, lambda word: word == CALLER)


def is_outermost(
    slot: int,
    words: dict[int, int],
    stack: StackBounds,
    *,
    size: int = 8,
    has_caller: bool = False,
    beyond: int = 0,
    knows_regions: bool = False,
) -> bool:
    """Ask of a 0 at `slot` on a stack that has `words`; `beyond` bytes of other memory come right after its base."""
    data = bytearray(BASE - LOW + beyond)
    for at, word in words.items():
        struct.pack_into("<Q" if size == 8 else "<I", data, at - LOW, word)
    ends = stack_ends(memory_of({LOW: bytes(data)}), size, knows_regions=knows_regions)
    return ends.is_outermost(slot, stack, has_caller=has_caller)


THREAD = StackBounds(LOW, BASE)
OTHER = StackBounds(LOW, LOW + (1 << 20), is_recorded=False)


@pytest.mark.parametrize("size", [4, 8])
def test_at_the_base_of_a_thread_s_stack_it_is_the_outermost(size):
    assert is_outermost(BASE - 0x28, {BASE - 0x10: 0x7FFE0000}, THREAD, size=size)
    assert is_outermost(BASE - size, {}, THREAD, size=size)


@pytest.mark.parametrize("size", [4, 8])
def test_under_the_frame_of_a_caller_it_was_overwritten(size):
    assert not is_outermost(BASE - 0x100, {BASE - 0x40: CALLER}, THREAD, size=size)


def test_far_from_the_base_it_was_overwritten_whatever_is_above():
    assert not is_outermost(BASE - 0x5000, {}, THREAD)


def test_a_function_that_has_a_caller_is_not_the_outermost_on_a_thread_s_stack():
    assert not is_outermost(BASE - 0x28, {}, THREAD, has_caller=True)


@pytest.mark.parametrize("stack", [OTHER, StackBounds(0x900000, 0x910000)])
@pytest.mark.parametrize("has_caller", [False, True])
def test_a_fiber_s_stack_ends_with_its_region(stack, has_caller):
    """What comes after it in memory is not its own: here another stack, right after the base."""
    after = {"beyond": 0x2000, "knows_regions": True, "has_caller": has_caller}
    assert is_outermost(BASE - 0x28, {BASE + 8: CALLER}, stack, **after)
    assert not is_outermost(BASE - 0x100, {BASE - 0x40: CALLER}, stack, **after)
    assert not is_outermost(BASE - 0x5000, {}, stack, **after)


def test_without_regions_a_fiber_s_stack_ends_where_memory_ends():
    assert is_outermost(BASE - 0x28, {}, OTHER)
    assert not is_outermost(BASE - 0x5000, {}, OTHER)


def test_words_that_cannot_be_read_prove_nothing():
    assert not is_outermost(BASE - 0x28, {}, StackBounds(LOW, BASE + 0x800))


@pytest.mark.parametrize("size", [4, 8])
def test_up_to_sixteen_kilobytes_above_the_slot_are_looked_at(size):
    assert is_outermost(BASE - 0x4000 - size, {}, THREAD, size=size)
    assert not is_outermost(BASE - 0x4000 - 2 * size, {}, THREAD, size=size)


@pytest.mark.parametrize(
    ("one", "other", "are_apart"),
    [
        (LOW + 8, BASE - 1, False),
        (LOW + 8, LOW, False),
        (LOW + 8, BASE, True),
        (LOW + 8, LOW - 1, True),
        (BASE, LOW, False),
    ],
    ids=["to its last byte", "to its first", "right above", "right below", "from no known region"],
)
def test_two_addresses_are_on_two_stacks_if_the_region_of_the_first_is_known_and_ends_between(one, other, are_apart):
    assert stack_ends(memory_of({}), 4, knows_regions=True).are_apart(one, other) is are_apart
    assert not stack_ends(memory_of({}), 4, knows_regions=False).are_apart(one, other)


def test_an_overwritten_return_address_is_named_with_its_slot():
    assert overwritten(0x10040) == "the return address at 0x10040 was overwritten: it is 0x0"
    assert overwritten(0x10040, 0x41414141) == "the return address at 0x10040 was overwritten: it is 0x41414141"
