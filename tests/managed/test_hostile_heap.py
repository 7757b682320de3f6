# SPDX-License-Identifier: Apache-2.0
"""Heaps and structures that an attacker wrote, or a disk damaged: no traceback, no hang, and bounded work."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.managed_heap import STACK, STRUCTURES, ForgedRuntime, Style
from tests.support.thrown_objects import AREAS, TID, ask, with_aggregate
from throwstack.core.budgets import BUDGETS, Meter
from throwstack.core.memory import PAGE_SIZE
from throwstack.core.registers import Arch
from throwstack.managed.runtime_memory import BudgetSpent, RuntimeMemory


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(Style), st.sampled_from(Arch), st.integers(0, 2**32), st.integers(1, 12))
def test_structures_with_changed_words_give_an_answer_or_a_reason(
    style: Style, arch: Arch, seed: int, count: int
) -> None:
    process, pages = with_aggregate(style, arch)
    chance = random.Random(seed)
    process.pages = {address: bytearray(page) for address, page in pages.items()}
    used = [page for page in pages if any(area <= page < area + 0x10000 for area in AREAS) and any(pages[page])]
    for _ in range(count):
        page = chance.choice(used)
        places = [at for at in range(0, PAGE_SIZE, process.size) if any(pages[page][at : at + process.size])]
        word = chance.choice(
            [0, 1, (1 << 8 * process.size) - 1, chance.getrandbits(8 * process.size), chance.choice(used) + 0x100]
        )
        process.word(page + chance.choice(places), word)
    assert all(text.isprintable() for text in ask(process))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(Style), st.sampled_from(Arch), st.integers(0, 2**32))
def test_any_page_may_be_absent(style: Style, arch: Arch, seed: int) -> None:
    process, pages = with_aggregate(style, arch)
    chance = random.Random(seed)
    lost = chance.sample(sorted(pages), k=chance.choice([1, 2, 8]))
    process.pages = {address: bytearray(page) for address, page in pages.items() if address not in lost}
    if any(page & -0x10000 == 0x10000000 for page in lost):
        return  # the runtime's own image: without its headers and exports there is no contract
    assert all(text.isprintable() for text in ask(process))


@pytest.mark.parametrize("arch", Arch)
def test_a_stack_of_pointers_to_pointers_ends_within_the_budget(arch: Arch) -> None:
    """Each word of the stack leads to another address, and each there to another: none is an exception."""
    process = ForgedRuntime(Style.ABSOLUTE, arch)
    area, size = 0x41000000, process.size
    words = 0x20000 // size
    for index in range(words):
        process.word(area + index * size, area + (index * 7919 * size) % 0x20000)
        process.word(STACK + index * size, area + index * size)
    runtime = process.runtime()
    assert runtime.exceptions_on_stack(STACK, STACK + 0x20000) == ()


def test_the_search_ends_when_its_budget_is_spent() -> None:
    process = ForgedRuntime()
    memory = RuntimeMemory(process.memory, 8, Meter())
    memory.spend(BUDGETS.managed.thread)
    with pytest.raises(BudgetSpent, match=r"budget of 65,536 places of a \.NET runtime's memory"):
        memory.spend()
    memory.begin()
    memory.spend()


def test_what_the_budget_did_not_allow_is_asked_again_later() -> None:
    process = ForgedRuntime(Style.ABSOLUTE)
    process.thread(TID, process.exception("Shop.OrderException", "x"))
    main = process.types["Shop.Program"].methods["Main"]
    runtime = process.runtime()
    runtime._memory.spend(BUDGETS.managed.thread)
    assert runtime.methods.find(main) is None
    found = runtime.methods.at(main)
    assert found is not None
    assert found.name == "Shop.Program.Main"


def test_searches_of_stacks_full_of_pointers_together_end_within_the_process_s_budget() -> None:
    """1 MB of words that lead to 131,072 different places, none of which is an object: each search counts 32,768."""
    process = ForgedRuntime(Style.ABSOLUTE)
    area, size, object_at = 0x41000000, 1 << 20, process.exception("Shop.OrderException", "found")
    process.place(area, bytes(size))
    process.place(STACK, b"".join((area + at).to_bytes(8, "little") for at in range(0, size, 8)))
    process.word(STACK + size - 8, object_at)
    runtime = process.runtime()
    assert [found.exception.address for found in runtime.exceptions_on_stack(STACK, STACK + size)] == [object_at]
    before = runtime._memory.left
    for _ in range(BUDGETS.managed.process // BUDGETS.managed.thread):
        runtime._memory.begin()
        runtime._memory.spend(runtime._memory.left)
    assert runtime.exceptions_on_stack(STACK, STACK + size) == ()
    assert BUDGETS.managed.thread - before >= size // 8 // 4


def test_words_that_may_lead_to_images_and_headers_of_images_count() -> None:
    """The Module leads to 96 structures with 24 words each; every word leads to `MZ`, and so to headers."""
    process = ForgedRuntime(Style.ABSOLUTE)
    module, structures, images = process.allocate(STRUCTURES, 0x400), 0x46000000, 0x42000000
    process.place(images, b"MZ".ljust(16, b"\0") * 96 * 24)
    for index in range(96):
        process.word(module + 8 * index, structures + index * 0x1000)
        for word in range(24):
            process.word(structures + index * 0x1000 + 8 * word, images + 16 * (24 * index + word))
    process.word(process.types["Shop.OrderException"].method_table + process._layout["module"], module)
    process.thread(TID, process.exception("Shop.OrderException", "x"))
    runtime = process.runtime()
    thrown = runtime.last_thrown(TID).exception
    assert thrown is not None
    assert "class not readable" in thrown.reasons[0]
    assert BUDGETS.managed.thread - runtime._memory.left > 96 * 24 * 16
