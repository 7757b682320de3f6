# SPDX-License-Identifier: Apache-2.0
"""CONTEXTs found on a stack by their ContextFlags, with nothing that points to them.

A CONTEXT counts if a record on the same stack names its instruction. The stacks of these tests have the record first.
"""

from __future__ import annotations

import struct

import pytest

from tests.forge.stacks import Label, Stack
from tests.support import x86_saved
from tests.support.targets import make_target, with_budget
from tests.support.x64_saved import put_context, put_record
from throwstack.core.frames import End, StackBounds, Walk
from throwstack.core.registers import Arch
from throwstack.dispatch.context_scan import context_offsets, scan_contexts
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.images.modules import Module
from throwstack.unwind.target import Target

LIMIT, BASE = 0x1F_FFF0_0000, 0x1F_FFF1_0000
APP = Module("app.exe", "", 0x7FF6_0000_0000, 0x10000)
FAULT = APP.base + 0x1234
RECORD, CONTEXT = LIMIT + 0x8000, LIMIT + 0x9000
FLAGS, IP = 0x30, 0xF8  # in a CONTEXT of x64
FOUR_MIB = 4 << 20


def process(data: bytes, limit: int = LIMIT) -> Target:
    return make_target(Arch.X64, [APP], {limit: data}, {}, Walk((), End.THREAD_START))


def thrown(*, record: int = RECORD, context: int = CONTEXT, base: int = BASE, **members: int) -> Stack:
    """A stack with one exception."""
    stack = Stack(LIMIT, base)
    put_record(stack, record, ip=FAULT)
    put_context(stack, context, rip=FAULT, rsp=context + 0x600, **members)
    return stack


def scan(stack: Stack, low: int = LIMIT, **budget: int) -> list[SavedException]:
    target = with_budget(process(stack.data()), **budget) if budget else process(stack.data())
    return list(scan_contexts(target, StackBounds(LIMIT, stack.base), low))


def places(found: list[SavedException]) -> list[tuple[int, int]]:
    return [(item.record.location, item.context.address) for item in found]


def test_a_context_and_a_record_that_names_its_instruction_are_an_exception():
    (found,) = scan(thrown())
    assert (found.record.location, found.context.address) == (RECORD, CONTEXT)
    assert (found.routes, found.frame_sp) == ((Route.SCAN,), CONTEXT)


def test_all_are_found_from_the_lowest_address_on_each_once():
    stack = thrown()
    put_context(stack, CONTEXT - 0x800, rip=FAULT, rsp=CONTEXT + 0x900)
    put_record(stack, RECORD + 0x100, ip=FAULT)
    assert places(scan(stack)) == [(RECORD, CONTEXT - 0x800), (RECORD, CONTEXT)]


@pytest.mark.parametrize(
    ("low", "is_found"), [(RECORD, True), (RECORD - 15, True), (CONTEXT, False), (RECORD + 1, False)]
)
def test_record_and_context_are_at_the_given_address_or_above(low: int, is_found: bool):
    assert bool(scan(thrown(), low)) is is_found


@pytest.mark.parametrize(("below", "is_found"), [(0, True), (0x10, False), (0x30, False)])
def test_a_context_that_starts_below_the_given_address_is_not_found(below: int, is_found: bool):
    """Its ContextFlags, 0x30 bytes into it, may still be above."""
    stack = thrown(context=CONTEXT, record=CONTEXT + 0x4F0)
    assert bool(scan(stack, CONTEXT + below)) is is_found


def test_the_search_begins_at_the_limit_of_the_stack_at_the_lowest():
    data = thrown().data()
    stack = StackBounds(CONTEXT + 0x10, BASE)
    assert list(scan_contexts(process(data), stack, LIMIT)) == []


def test_an_x86_context_begins_at_any_word():
    limit, base, at = 0x00188000, 0x00190000, 0x0018A004
    stack, record, context = Stack(limit, base), Label("record"), Label("context")
    x86_saved.put_context(stack, at, context, esp=at + 0x800)
    x86_saved.put_record(stack, at + 0x400, record)
    code = Module("kernel32.dll", "", 0x77E40000, 0x100000)
    target = make_target(Arch.X86, [code], {limit: stack.data()}, {}, Walk((), End.THREAD_START))
    (found,) = scan_contexts(target, StackBounds(limit, base), at)
    assert (found.record.location, found.context.address) == (int(record), int(context))


@pytest.mark.parametrize(("arch", "flags", "unit"), [(Arch.X86, 0x1003F, 4), (Arch.X64, 0x10005F, 16)])
def test_flags_at_an_address_where_no_context_can_have_them_are_ordinary_words(arch: Arch, flags: int, unit: int):
    """Offsets are from the start of the CONTEXT, which on x64 has its flags at +0x30 and may begin before the data."""
    before, word = arch.facts.context_flags_at, struct.pack("<I", flags)
    offsets = [list(context_offsets(bytes(at) + word + bytes(64), arch)) for at in range(2 * unit)]
    assert offsets == [[at - before] if at % unit == 0 else [] for at in range(2 * unit)]


def test_the_dispatchers_working_copy_whose_ip_is_0_is_no_exception():
    stack = Stack(LIMIT, BASE)
    put_record(stack, LIMIT, ip=0)
    put_context(stack, LIMIT + 0x1000, rip=0, rsp=LIMIT + 0x2000)
    assert scan(stack) == []


def test_the_first_word_of_the_stack_may_be_the_instruction():
    """A record that names it would begin in memory that cannot be read."""
    stack = thrown()
    stack.at(LIMIT).d64(FAULT)
    assert places(scan(stack)) == [(RECORD, CONTEXT)]


@pytest.mark.parametrize(
    ("eflags", "is_found"),
    [
        pytest.param(0x00000246, True, id="ordinary"),
        pytest.param(0x00000247, True, id="carry"),
        pytest.param(0x00200202, True, id="bit 21 (CPUID)"),
        pytest.param(0x00400202, False, id="bit 22"),
        pytest.param(0x80000202, False, id="bit 31"),
        pytest.param(0x00000244, False, id="without bit 1"),
        pytest.param(0x00000245, False, id="carry, without bit 1"),
    ],
)
def test_eflags_are_such_as_user_code_can_have(eflags: int, is_found: bool):
    assert bool(scan(thrown(eflags=eflags))) is is_found


@pytest.mark.parametrize(("words", "is_found"), [(63, True), (64, False)])
def test_64_words_with_the_address_of_the_instruction_are_looked_at(words: int, is_found: bool):
    stack = thrown()
    stack.at(LIMIT + 0x100).d64(*[FAULT] * words)
    assert bool(scan(stack)) is is_found


@pytest.mark.parametrize(("others", "is_found"), [(1023, True), (1024, False)])
def test_1024_places_that_look_like_a_context_are_looked_at(others: int, is_found: bool):
    stack = thrown(record=LIMIT + 0x20, context=LIMIT + 0xC000)
    stack.at(LIMIT + 0x1000 + FLAGS)
    for _ in range(others):
        stack.d32(0x10005F, 0).d64(1)
    stack.d64(*[0, 1] * ((IP - FLAGS) // 16 + 1))  # so that each of them has an ip
    assert bool(scan(stack)) is is_found


def test_a_pass_over_the_stack_for_contexts_and_one_for_records_are_taken_from_the_budget():
    size = BASE - LIMIT
    assert len(scan(thrown(), searched=2 * size, checks=100)) == 1
    assert scan(thrown(), searched=2 * size - 1, checks=100) == []


def test_what_the_budget_does_not_cover_is_not_searched():
    needed = CONTEXT + IP + 8 - LIMIT
    assert len(scan(thrown(), searched=2 * needed, checks=100)) == 0
    data = thrown(record=RECORD).data()[:needed]
    assert len(list(scan_contexts(process(data), StackBounds(LIMIT, BASE), LIMIT))) == 1


@pytest.mark.parametrize(("ip_at", "is_found"), [(FOUR_MIB - 8, True), (FOUR_MIB + 8, False)])
def test_4_mib_of_a_stack_are_searched(ip_at: int, is_found: bool):
    stack = thrown(record=LIMIT, context=LIMIT + ip_at - IP, base=LIMIT + FOUR_MIB + 0x10000)
    assert bool(scan(stack)) is is_found
