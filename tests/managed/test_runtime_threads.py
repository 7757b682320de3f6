# SPDX-License-Identifier: Apache-2.0
"""From threads of Windows to the runtime's: the vote, the list of the contract, slots of .NET Framework."""

from __future__ import annotations

import struct

import pytest

from tests.support.managed_heap import RUNTIME, STACK, STRUCTURES, ForgedRuntime, Style
from throwstack.core.registers import Arch


@pytest.mark.parametrize("arch", Arch)
def test_a_heap_block_that_looks_like_a_thread_is_outvoted(arch: Arch) -> None:
    """A block before the Thread in the thread-local storage has the same id and TEB, at offsets of no other thread."""
    process = ForgedRuntime(Style.ABSOLUTE, arch)
    order = process.exception("Shop.OrderException", "no stock")
    for tid in (0x10, 0x14, 0x18):
        process.thread(tid, order if tid == 0x14 else 0)
    _, teb = process.threads[1]
    slots = int.from_bytes(process.memory.read(teb + (0x58 if arch is Arch.X64 else 0x2C), process.size), "little")
    block = int.from_bytes(process.memory.read(slots + 3 * process.size, process.size), "little")
    lookalike = process.allocate(STRUCTURES, 0x400)
    process.place(lookalike + 0x30, struct.pack("<I", 0x14))
    process.word(lookalike + 0x40, teb)
    process.word(block, lookalike)
    found = process.runtime().exception_of(0x14)
    assert found is not None
    assert found.message == "no stock"


def test_a_thread_whose_teb_is_absent_is_found_in_the_list_that_the_contract_tells_of() -> None:
    process = ForgedRuntime(Style.CONTRACT)
    process.thread(0x10)
    process.thread(0x14, process.exception("Shop.OrderException", "no stock"))
    process.threads = [(tid, 0x66660000) for tid, _ in process.threads]
    assert process.runtime().exception_of(0x14) is not None


def test_a_list_of_threads_that_runs_in_a_circle_ends() -> None:
    process = ForgedRuntime(Style.CONTRACT)
    first = process.thread(0x10)
    second = process.thread(0x14)
    process.word(second + 0x78, first + 0x78)
    process.threads = []
    assert process.runtime().last_thrown(0x99).exception is None


@pytest.mark.parametrize("arch", Arch)
def test_a_thread_in_a_slot_of_the_teb_is_found(arch: Arch) -> None:
    process = ForgedRuntime(Style.ABSOLUTE, arch)
    thread = process.thread(0x10, process.exception("Shop.OrderException", "no stock"))
    _, teb = process.threads[0]
    process.word(teb + (0x58 if arch is Arch.X64 else 0x2C), 0)
    assert process.runtime().exception_of(0x10) is None
    process.word(teb + (0x1480 if arch is Arch.X64 else 0xE10) + 5 * process.size, thread)
    assert process.runtime().exception_of(0x10) is not None


@pytest.mark.parametrize("arch", Arch)
def test_a_thread_whose_storage_is_lost_is_found_by_its_stack(arch: Arch) -> None:
    process = ForgedRuntime(Style.ABSOLUTE, arch)
    process.thread(0x10)
    process.thread(0x18)
    thread = process.thread(0x14, process.exception("Shop.OrderException", "no stock"))
    teb = dict(process.threads)[0x14]
    process.word(teb + (0x58 if arch is Arch.X64 else 0x2C), 0)
    assert process.runtime().exception_of(0x14) is None
    base = STACK + 0x20000
    process.word(teb + process.size, base)
    # Two pages of the stack are committed, and one of them is in the page file.
    process.place(base - 0x2000, bytes(0x1000))
    process.word(base - 0x1400, thread)
    assert process.runtime().exception_of(0x14) is not None


def test_the_threads_vote_by_their_stacks_where_the_runtime_s_own_headers_are_lost() -> None:
    process = ForgedRuntime(Style.ABSOLUTE)
    order = process.exception("Shop.OrderException", "no stock")
    for number, tid in enumerate((0x10, 0x14, 0x18)):
        thread = process.thread(tid, order if tid == 0x14 else 0)
        base = STACK + (number + 1) * 0x20000
        process.word(process.threads[-1][1] + 8, base)
        for page in range(base - 0x20000, base, 0x1000):
            process.place(page, bytes(0x1000))
        process.word(base - 0x300 - number * 8, thread)
        process.word(base - 0x200, process.threads[-1][1])
    process.place(RUNTIME, bytes(0x400))
    found = process.runtime().exception_of(0x14)
    assert found is not None
    assert found.message == "no stock"


def test_a_single_thread_has_no_vote_and_known_places_come_first() -> None:
    process = ForgedRuntime(Style.ABSOLUTE)
    process.thread(0x14, process.exception("Shop.OrderException", "no stock"))
    _, teb = process.threads[0]
    block = int.from_bytes(process.memory.read(process.memory.u64(teb + 0x58) + 24, 8), "little")
    lookalike = process.allocate(STRUCTURES, 0x400)
    process.place(lookalike + 0x30, struct.pack("<I", 0x14))
    process.word(lookalike + 0x40, teb)
    process.word(block, lookalike)
    assert process.runtime().exception_of(0x14) is not None


def test_the_architecture_is_that_of_another_image_where_the_runtime_s_headers_are_lost() -> None:
    process = ForgedRuntime(Style.ABSOLUTE, Arch.X86)
    order = process.exception("Shop.OrderException", "no stock")
    process.place(RUNTIME, bytes(0x400))
    assert process.runtime().exceptions_on_stack(STACK, STACK + 4) == ()
    process.word(STACK, order)
    assert [item.exception.message for item in process.runtime().exceptions_on_stack(STACK, STACK + 4)] == ["no stock"]
