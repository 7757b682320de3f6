# SPDX-License-Identifier: Apache-2.0
"""Several exceptions in flight on one thread: a catch block threw."""

from __future__ import annotations

import pytest

from tests.support.managed_heap import STRUCTURES, ForgedRuntime, Style
from tests.support.managed_layouts import LAYOUTS
from throwstack.core.registers import Arch

TID = 0x14


def threw_in_catch(style: Style, arch: Arch, count: int = 2) -> tuple[ForgedRuntime, list[int], list[int]]:
    """Lay out a thread with `count` exceptions in flight; return them and the addresses of their structures."""
    process = ForgedRuntime(style, arch)
    orders = [process.exception("Shop.OrderException", str(number)) for number in range(count)]
    thread = process.thread(TID, orders[0])
    thrown = LAYOUTS[process.size]["thrown"]
    places = [process.allocate(STRUCTURES, 0x80) for _ in orders]
    if style is Style.CONTRACT:
        process.word(thread + thrown + 0x20, places[0])
        handle, previous = 8, 0
    elif arch is Arch.X64:
        process.word(thread + thrown + 0x10, places[0])
        handle, previous = 0x48, 0
    else:
        places[0] = thread + thrown
        handle, previous = 0xC, 0x18
    for place, order, before in zip(places, orders, [*places[1:], 0], strict=True):
        cell = process.allocate(STRUCTURES, process.size)
        process.word(cell, order)
        process.word(place + handle, cell)
        process.word(place + previous, before)
    return process, orders, places


@pytest.mark.parametrize(
    ("style", "arch"), [(Style.CONTRACT, Arch.X64), (Style.ABSOLUTE, Arch.X64), (Style.ABSOLUTE, Arch.X86)]
)
def test_all_exceptions_in_flight_are_told_the_last_thrown_first(style: Style, arch: Arch) -> None:
    process, orders, _ = threw_in_catch(style, arch, 3)
    assert [found.address for found in process.runtime().exceptions_in_flight(TID)] == orders


def test_a_chain_that_runs_in_a_circle_ends() -> None:
    process, orders, places = threw_in_catch(Style.CONTRACT, Arch.X64)
    process.word(places[1], places[0])
    assert [found.address for found in process.runtime().exceptions_in_flight(TID)] == orders


def test_without_structures_the_last_thrown_one_is_told() -> None:
    process = ForgedRuntime()
    order = process.exception("Shop.OrderException", "alone")
    process.thread(TID, order)
    process.thread(TID + 4)
    runtime = process.runtime()
    assert [found.address for found in runtime.exceptions_in_flight(TID)] == [order]
    assert runtime.exceptions_in_flight(TID + 4) == ()
