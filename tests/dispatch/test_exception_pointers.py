# SPDX-License-Identifier: Apache-2.0
"""Record and CONTEXT found by words that point to them, on the stack and in nonvolatile registers."""

from __future__ import annotations

import pytest

from tests.forge.stacks import Label, Stack
from tests.support import x86_saved
from tests.support.targets import make_target, with_budget
from tests.support.x64_saved import frame, put_context, put_record
from throwstack.core.frames import End, StackBounds, Walk
from throwstack.core.registers import Arch
from throwstack.dispatch.exception_pointers import from_registers, pair_at, scan_pointers
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.images.modules import Module
from throwstack.unwind.target import Target

LIMIT, BASE = 0x1F_FFF0_0000, 0x1F_FFF1_0000
STACK = StackBounds(LIMIT, BASE)
APP = Module("app.exe", "", 0x7FF6_0000_0000, 0x10000)
FAULT = APP.base + 0x1234
PAIR, RECORD, CONTEXT = LIMIT + 0x4000, LIMIT + 0x8000, LIMIT + 0x9000
FOUR_MIB, PAGE = 4 << 20, 0x1000


def process(stack: Stack, **more: bytes) -> Target:
    memory = {stack.limit: stack.data(), **{int(address, 16): data for address, data in more.items()}}
    return make_target(Arch.X64, [APP], memory, {}, Walk((), End.THREAD_START))


def thrown(base: int = BASE, record: int = RECORD, context: int = CONTEXT) -> Stack:
    """A stack with one exception, and nothing that points there."""
    stack = Stack(LIMIT, base)
    put_record(stack, record, ip=FAULT)
    put_context(stack, context, rip=FAULT, rsp=context + 0x600)
    return stack


def scan(stack: Stack, low: int = LIMIT, high: int = BASE, **budget: int) -> list[SavedException]:
    target = with_budget(process(stack), **budget) if budget else process(stack)
    return list(scan_pointers(target, StackBounds(stack.limit, stack.base), low, high))


def test_two_adjacent_words_point_to_record_and_context():
    (found,) = scan(thrown().at(PAIR).d64(RECORD, CONTEXT))
    assert (found.record.location, found.context.address) == (RECORD, CONTEXT)
    assert (found.routes, found.frame_sp) == ((Route.POINTERS,), PAIR)


def test_on_x64_nothing_is_between_them_and_the_record_comes_first():
    assert scan(thrown().at(PAIR).d64(RECORD, 0, CONTEXT)) == []
    assert scan(thrown().at(PAIR).d64(CONTEXT, RECORD)) == []


@pytest.mark.parametrize(
    ("low", "high", "is_found"),
    [
        (PAIR, BASE, True),
        (PAIR - 7, BASE, True),
        (PAIR + 1, BASE, False),
        (LIMIT, PAIR + 8, True),
        (LIMIT, PAIR, False),
        (0, 1 << 63, True),
    ],
    ids=["from it on", "rounded up to it", "above it", "up to it", "below it", "whatever is asked"],
)
def test_the_words_are_searched_between_two_addresses(low: int, high: int, is_found: bool):
    assert bool(scan(thrown().at(PAIR).d64(RECORD, CONTEXT), low, high)) is is_found


@pytest.mark.parametrize(("high", "is_found"), [(PAIR + 0x108, True), (PAIR + 0x100, False)])
def test_the_words_may_be_anywhere_on_a_page(high: int, is_found: bool):
    assert bool(scan(thrown().at(PAIR + 0x100).d64(RECORD, CONTEXT), high=high)) is is_found


def test_words_below_the_limit_of_the_stack_are_not_searched():
    stack = thrown().at(PAIR).d64(RECORD, CONTEXT)
    assert list(scan_pointers(process(stack), StackBounds(PAIR + 8, BASE), LIMIT, BASE)) == []


@pytest.mark.parametrize(("at", "is_found"), [(FOUR_MIB - 8, True), (FOUR_MIB, False)])
def test_4_mib_of_a_stack_are_searched(at: int, is_found: bool):
    base = LIMIT + FOUR_MIB + 0x10000
    record, context = base - 0x2000, base - 0x1000
    stack = thrown(base, record, context).at(LIMIT + at).d64(record, context)
    assert bool(scan(stack, high=base)) is is_found


@pytest.mark.parametrize("at", [RECORD + 0x100, CONTEXT + 0x500], ids=["above the record", "above both"])
def test_record_and_context_are_further_out_than_the_words(at: int):
    assert scan(thrown().at(at).d64(RECORD, CONTEXT)) == []


def test_a_word_that_points_to_itself_points_to_no_record():
    """As a record it would have a code, no parameters, and the instruction of the CONTEXT."""
    stack = thrown().at(PAIR).d64(PAIR, CONTEXT, FAULT, 0)
    assert scan(stack) == []


def test_a_word_in_a_context_that_points_to_this_context_is_none_of_two_pointers():
    """A function may keep its arguments in the first words of a CONTEXT (P1Home, P2Home)."""
    stack = Stack(LIMIT, BASE)
    put_record(stack, CONTEXT + 0x800, ip=FAULT)
    put_context(stack, CONTEXT, rip=FAULT, rsp=CONTEXT + 0xA00)
    data = bytearray(stack.data())
    words = (CONTEXT + 0x800).to_bytes(8, "little") + CONTEXT.to_bytes(8, "little")
    data[CONTEXT - LIMIT : CONTEXT - LIMIT + 16] = words
    target = make_target(Arch.X64, [APP], {LIMIT: bytes(data)}, {}, Walk((), End.THREAD_START))
    assert list(scan_pointers(target, STACK, LIMIT, BASE)) == []


def test_a_context_that_is_not_on_the_stack_needs_another_way():
    beyond = Stack(BASE, BASE + PAGE)
    put_context(beyond, BASE, rip=FAULT, rsp=CONTEXT)
    stack = Stack(LIMIT, BASE).at(PAIR).d64(RECORD, BASE)
    put_record(stack, RECORD, ip=FAULT)
    target = process(stack, **{hex(BASE): beyond.data()})
    assert pair_at(target, STACK, PAIR, route=Route.GLOBALS, frame_sp=PAIR) is not None
    assert list(scan_pointers(target, STACK, LIMIT, BASE)) == []


def test_a_record_that_is_not_on_the_stack_needs_another_way():
    beyond = Stack(BASE, BASE + PAGE)
    put_record(beyond, BASE, ip=FAULT)
    stack = Stack(LIMIT, BASE).at(PAIR).d64(BASE, CONTEXT)
    put_context(stack, CONTEXT, rip=FAULT, rsp=CONTEXT + 0x600)
    assert scan(stack) == []
    assert list(scan_pointers(process(stack, **{hex(BASE): beyond.data()}), STACK, LIMIT, BASE)) == []


def on_x86(distance: int = 1, *, record_shift: int = 0, context_shift: int = 0) -> list[SavedException]:
    """An x86 stack with two words `distance` apart. What they point to may be at an odd address."""
    limit, base, at = 0x00188000, 0x00190000, 0x0018A000
    stack, record, context = Stack(limit, base), Label("record"), Label("context")
    x86_saved.put_record(stack, at, record)
    x86_saved.put_context(stack, at + 0x800, context, esp=at + 0x1000)
    data = bytearray(base - limit)
    for address, piece in stack.pieces().items():
        place = address - limit + (record_shift if address < at + 0x800 else context_shift)
        data[place : place + len(piece)] = piece
    for place, word in ((0x100, at + record_shift), (0x100 + 4 * distance, at + 0x800 + context_shift)):
        data[place : place + 4] = word.to_bytes(4, "little")
    code = Module("kernel32.dll", "", 0x77E40000, 0x100000)
    target = make_target(Arch.X86, [code], {limit: bytes(data)}, {}, Walk((), End.THREAD_START))
    return list(scan_pointers(target, StackBounds(limit, base), limit, base))


@pytest.mark.parametrize(("distance", "routes"), [(1, [(Route.POINTERS,)]), (2, [(Route.HANDLER_ARGUMENTS,)]), (3, [])])
def test_an_x86_handler_has_the_registration_between_them(distance: int, routes: list[tuple[Route, ...]]):
    assert [found.routes for found in on_x86(distance)] == routes


def test_record_and_context_are_aligned():
    assert on_x86(record_shift=2) == []
    assert on_x86(context_shift=2) == []


@pytest.mark.parametrize(("pairs", "is_found"), [(4095, True), (4096, False)])
def test_4096_pairs_are_examined(pairs: int, is_found: bool):
    stack = thrown(LIMIT + 0x20000).at(LIMIT + 0xA000).d64(*[LIMIT + 0x1F000] * (pairs + 1), 0)
    put_record(stack, LIMIT + 0x1E000, ip=FAULT)
    put_context(stack, LIMIT + 0x1E100, rip=FAULT, rsp=LIMIT + 0x1F000)
    stack.at(LIMIT + 0x1D000).d64(LIMIT + 0x1E000, LIMIT + 0x1E100)
    assert bool(scan(stack, low=LIMIT + 0xA000, high=LIMIT + 0x20000)) is is_found


@pytest.mark.parametrize(("missing", "is_found"), [(0, True), (1, False)])
def test_a_page_costs_its_size_and_one_with_known_contents_64_bytes(missing: int, is_found: bool):
    stack = thrown().at(LIMIT + 4 * PAGE).d64(RECORD, CONTEXT)
    cost = PAGE + 3 * 64 + PAGE  # four pages of zeros, and that of the words
    found = scan(stack, high=LIMIT + 5 * PAGE, searched=cost - missing, pointers=9, checks=9)
    assert bool(found) is is_found


@pytest.mark.parametrize(("pointers", "is_found"), [(2, True), (1, False)])
def test_each_word_that_points_to_the_stack_is_taken_from_a_budget(pointers: int, is_found: bool):
    stack = thrown().at(PAIR).d64(RECORD, CONTEXT)
    assert bool(scan(stack, high=PAIR + PAGE, searched=1 << 20, pointers=pointers, checks=9)) is is_found


def test_the_search_ends_at_a_page_that_is_not_in_memory():
    stack = thrown().at(PAIR).d64(RECORD, CONTEXT)
    data = stack.data()
    above, below = {PAIR: data[PAIR - LIMIT :]}, {LIMIT: data[: PAIR - LIMIT - PAGE]}
    target = make_target(Arch.X64, [APP], {**below, **above}, {}, Walk((), End.THREAD_START))
    assert list(scan_pointers(target, STACK, LIMIT, BASE)) == []
    assert len(list(scan_pointers(target, STACK, PAIR, BASE))) == 1


def test_the_second_word_may_be_on_a_page_that_is_not_in_memory():
    stack = thrown(LIMIT + 5 * PAGE, LIMIT + 0x100, LIMIT + 0x200).at(LIMIT + PAGE - 8).d64(LIMIT + 2 * PAGE)
    target = make_target(Arch.X64, [APP], {LIMIT: stack.data()[:PAGE]}, {}, Walk((), End.THREAD_START))
    assert list(scan_pointers(target, STACK, LIMIT, LIMIT + PAGE)) == []


@pytest.mark.parametrize("distance", [1, 2])
def test_a_pair_is_looked_for_where_it_is_known_to_be(distance: int):
    stack = thrown().at(PAIR).d64(RECORD, *[0] * (distance - 1), CONTEXT)
    found = pair_at(process(stack), STACK, PAIR, route=Route.RAISE, frame_sp=LIMIT, distance=distance)
    assert found is not None
    assert (found.record.location, found.context.address, found.frame_sp) == (RECORD, CONTEXT, LIMIT)
    assert found.routes == (Route.RAISE,)
    assert pair_at(process(stack), STACK, 0x1000, route=Route.RAISE, frame_sp=LIMIT) is None


def registers(*frames: tuple[int, dict[str, int]]) -> list[SavedException]:
    """The exceptions to which frames (sp, nonvolatile registers) of one stack lead."""
    stack = thrown().at(PAIR).d64(RECORD, CONTEXT)
    walked = [frame(FAULT, sp, **values) for sp, values in frames]
    return list(from_registers(process(stack), STACK, walked))


def test_a_register_points_to_the_pointers_or_two_to_record_and_context():
    for values in ({"rbx": PAIR}, {"rdi": RECORD, "r15": CONTEXT}, {"rdi": CONTEXT, "r15": RECORD}):
        (found,) = registers((LIMIT + 0x100, values))
        assert (found.record.location, found.context.address, found.routes) == (RECORD, CONTEXT, (Route.REGISTER,))


@pytest.mark.parametrize("name", ["rax", "rcx", "rdx", "r8", "r9", "r10", "r11"])
def test_a_volatile_register_is_any_functions(name: str):
    assert registers((LIMIT + 0x100, {name: PAIR})) == []


def test_of_frames_with_the_same_registers_the_innermost_counts():
    (found,) = registers((LIMIT + 0x100, {"rbx": PAIR}), (LIMIT + 0x200, {"rbx": PAIR}), (LIMIT + 0x300, {"rbx": 0}))
    assert found.frame_sp == LIMIT + 0x100


def test_registers_do_not_lead_to_a_context_outside_the_stack():
    beyond = Stack(BASE, BASE + PAGE)
    put_context(beyond, BASE, rip=FAULT, rsp=CONTEXT)
    target = process(thrown(), **{hex(BASE): beyond.data()})
    assert list(from_registers(target, STACK, [frame(FAULT, LIMIT + 0x100, rbx=RECORD, rsi=BASE)])) == []
