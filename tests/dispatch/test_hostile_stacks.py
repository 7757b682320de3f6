# SPDX-License-Identifier: Apache-2.0
"""Stacks full of words that look right: the search ends, does not raise, and keeps to its own rules."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.forge.stacks import Stack
from tests.support.context_records import x64_context, x86_context
from tests.support.hostile_stacks import BASE, CODE, LIMIT, check, frames, hostile, target_of
from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.memory import Memory
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.exception_pointers import scan_pointers
from throwstack.dispatch.search import SearchStart, exceptions_in_flight
from throwstack.unwind.target import Target


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    arch=st.sampled_from(list(Arch)),
    seeds=st.tuples(st.integers(0, 1 << 32), st.integers(0, 1 << 32)),
    proves=st.booleans(),
    is_complete=st.booleans(),
    registrations=st.none() | st.lists(st.integers(LIMIT // 4, BASE // 4 + 2).map(lambda word: 4 * word), max_size=8),
)
def test_nothing_on_a_stack_makes_the_search_raise(
    arch: Arch, seeds: tuple[int, int], proves: bool, is_complete: bool, registrations: list[int] | None
):
    walked = frames(arch, seeds[1])
    target = target_of(arch, hostile(arch, seeds[0]), Walk(walked, End.THREAD_START))
    chain = registrations if arch is Arch.X86 else None
    blocked = SearchStart(walked, LIMIT, is_complete, proves, chain)
    check(target, exceptions_in_flight(target, StackBounds(LIMIT, BASE), blocked))


class CountingMemory(Memory):
    """Counts the reads of structures."""

    __slots__ = ("reads",)

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.reads = 0

    def read(self, address: int, size: int) -> bytes:
        self.reads += 1
        return super().read(address, size)


@pytest.mark.parametrize("arch", list(Arch))
def test_a_stack_of_nothing_but_pointers_to_contexts_costs_a_bounded_number_of_checks(arch: Arch):
    """Every pair of words leads to a record and a CONTEXT: a bounded number of them is read."""
    base = LIMIT + (8 << 20)
    size = arch.pointer_size
    context = x64_context(0x10005F) if arch is Arch.X64 else x86_context(flags=0x10007)
    pair = struct.pack("<QQ" if size == 8 else "<II", base - 0x100, base - 0x1000)
    stack = Stack(base - 0x1000, base).raw(context).data()
    data = pair * ((base - LIMIT - 0x1000) // len(pair)) + stack
    target = target_of(arch, data, Walk((), End.THREAD_START))
    counting = CountingMemory(target.memory)
    watched = Target(arch, counting, target.images, target.symbols, target.unwinder)
    assert list(scan_pointers(watched, StackBounds(LIMIT, base), LIMIT, base)) == []
    assert 0 < counting.reads < 50_000


def test_the_search_ends_where_exceptions_lead_back_to_themselves():
    """The stack that threw has the dispatcher's frame of the same exception on it: each step must lead outwards."""
    at, stack = LIMIT + 0x1000, Stack(LIMIT, BASE)
    context = bytearray(x64_context(0x10005F))
    struct.pack_into("<Q", context, 0x98, at + 0x700)
    struct.pack_into("<Q", context, 0xF8, CODE[0])
    stack.at(at).raw(bytes(context))
    stack.at(at + 0x4F0).d32(0xC0000005, 0).d64(0, CODE[0], 0)
    dispatcher = Frame(Registers.named(Arch.X64, {"rip": CODE[0], "rsp": at}), at, 0, None, Trust.CFI)
    target = target_of(Arch.X64, stack.data(), Walk((dispatcher,), End.THREAD_START))
    found = exceptions_in_flight(target, StackBounds(LIMIT, BASE), SearchStart((dispatcher,), at))
    assert len(found.exceptions) == 1
