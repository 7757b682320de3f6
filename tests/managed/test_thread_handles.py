# SPDX-License-Identifier: Apache-2.0
"""Why the runtime's structure of a thread leads to no exception, where neither contract nor other threads tell."""

from __future__ import annotations

import pytest

from tests.support.managed_heap import ForgedRuntime, Style
from tests.support.managed_layouts import LAYOUTS
from throwstack.core.registers import Arch

NONE = "no exception was found in the runtime's structure of this thread"
BOTH = pytest.mark.parametrize("arch", list(Arch))


def with_thread(arch: Arch) -> tuple[ForgedRuntime, int, int]:
    """Return a process with a thread that threw, the address of its Thread, and where this has the handle."""
    process = ForgedRuntime(Style.ABSOLUTE, arch)
    thread = process.thread(0x14, process.exception("Shop.OrderException", "no stock"))
    return process, thread, thread + LAYOUTS[process.size]["thrown"]


@BOTH
def test_an_object_or_a_handle_on_an_absent_page_is_said_with_its_address(arch: Arch) -> None:
    process, _, place = with_thread(arch)
    cell = process.memory.pointer(place, process.size)
    process.word(cell, 0x4F000010)
    said = f"{NONE}; where its handle to one may lead, {{:#x}}, is not in the dump"
    assert process.runtime().last_thrown(0x14).reason == said.format(0x4F000010)
    process.word(place, 0x5F000010)
    assert process.runtime().last_thrown(0x14).reason == said.format(0x5F000010)


@BOTH
def test_a_structure_that_goes_on_on_an_absent_page_is_not_readable(arch: Arch) -> None:
    process, thread, _ = with_thread(arch)
    end = 0x5E001000
    moved = end - LAYOUTS[process.size]["id"] - 0x18
    process.place(moved, process.memory.read(thread, end - moved))
    block = thread - 0x40
    process.word(block + 2 * process.size, moved)
    said = process.runtime().last_thrown(0x14).reason
    assert said == f"the runtime's structure of this thread is not readable: memory at {end + 8:#x} is not readable"


@BOTH
def test_without_anything_absent_there_is_no_exception(arch: Arch) -> None:
    process, _, place = with_thread(arch)
    for nothing in (0, 7, process.size, 0xFFFFFFFF):
        process.word(place, nothing)
        assert process.runtime().last_thrown(0x14).reason == NONE
