# SPDX-License-Identifier: Apache-2.0
"""Functions found by address: their entries, chains of them, and what cannot be known."""

from __future__ import annotations

import struct

from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import RBX, TEXT, ImageBuilder
from throwstack.core.frames import End
from throwstack.core.memory import Memory, SegmentSource
from throwstack.core.stop import Stop
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.x64.functions import CHAIN_LIMIT, Function, Functions
from throwstack.unwind.x64.unwind_info import UnwindOp

BASE = 0x180000000
PUSH_RBX = asm.unwind_info([asm.push_nonvol(1, RBX)], 1)


def functions(image: bytes, missing: int | None = None) -> Functions:
    source = SegmentSource({BASE: image})

    class Torn:
        def page(self, address: int) -> bytes | None:
            return None if address == missing else source.page(address)

    return Functions(ImageMap(Memory(Torn()), ModuleMap([Module("made.dll", "", BASE, len(image))])))


def test_an_address_in_an_entry_and_one_in_none() -> None:
    builder = ImageBuilder(b"\x90" * 0x100)
    builder.add(TEXT, TEXT + 0x20, PUSH_RBX)
    found = functions(builder.build())
    function = found.find(BASE + TEXT + 0x1F)
    assert isinstance(function, Function)
    assert (function.base, function.begin) == (BASE, TEXT)
    assert [code.op for code in function.parts[0].info.codes] == [UnwindOp.PUSH_NONVOL]
    assert found.find(BASE + TEXT + 0x20) is None  # a leaf function
    assert found.find(BASE - 1) is None  # outside the images


def test_the_parts_of_a_function_lead_to_its_primary_entry() -> None:
    builder = ImageBuilder(b"\x90" * 0x100)
    primary = builder.add(TEXT, TEXT + 0x20, PUSH_RBX)
    builder.add(TEXT + 0x40, TEXT + 0x60, asm.unwind_info([asm.alloc(4, 0x20)], 4, chained=primary))
    function = functions(builder.build()).find(BASE + TEXT + 0x41)
    assert isinstance(function, Function)
    assert [part.entry.begin for part in function.parts] == [TEXT + 0x40, TEXT]
    assert function.begin == TEXT


def test_an_entry_with_an_odd_unwind_rva_refers_to_another_one() -> None:
    builder = ImageBuilder(b"\x90" * 0x100)
    primary = builder.add(TEXT, TEXT + 0x20, PUSH_RBX)
    place = builder.add_info(struct.pack("<III", *primary))
    builder.add(TEXT + 0x40, TEXT + 0x60, place + 1)
    function = functions(builder.build()).find(BASE + TEXT + 0x41)
    assert isinstance(function, Function)
    assert function.begin == TEXT


def test_an_unwind_code_holds_from_the_end_of_its_instruction() -> None:
    builder = ImageBuilder(b"\x90" * 0x100)
    primary = builder.add(TEXT, TEXT + 0x20, PUSH_RBX)
    builder.add(TEXT + 0x40, TEXT + 0x60, asm.unwind_info([asm.alloc(4, 0x20)], 4, chained=primary))
    found = functions(builder.build())
    whole, cold = found.find(BASE + TEXT), found.find(BASE + TEXT + 0x40)
    assert not whole.has_frame_at(TEXT)
    assert whole.has_frame_at(TEXT + 1)
    assert cold.has_frame_at(TEXT + 0x40)  # the primary entry's prologue has run


def test_a_chain_has_as_many_entries_as_windows_follows() -> None:
    builder = ImageBuilder(b"\x90" * 0x2000)
    entry = builder.add(TEXT, TEXT + 0x10, PUSH_RBX)
    for index in range(1, CHAIN_LIMIT + 1):
        begin = TEXT + 0x20 * index
        entry = builder.add(begin, begin + 0x10, asm.unwind_info([], chained=entry))
    found = functions(builder.build())
    longest = found.find(BASE + TEXT + 0x20 * (CHAIN_LIMIT - 1))
    assert isinstance(longest, Function)
    assert len(longest.parts) == CHAIN_LIMIT
    stop = found.find(BASE + TEXT + 0x20 * CHAIN_LIMIT)
    assert isinstance(stop, Stop)
    assert stop.end is End.BAD_UNWIND_DATA


def test_without_readable_headers_no_function_is_called_a_leaf() -> None:
    builder = ImageBuilder(b"\x90" * 0x100)
    builder.add(TEXT, TEXT + 0x20, PUSH_RBX)
    image = builder.build()
    stop = functions(image, missing=BASE).find(BASE + TEXT + 0x80)
    assert stop == Stop(End.UNREADABLE, f"headers of made.dll at {BASE:#x}")


def test_code_is_read_up_to_a_page_that_is_missing() -> None:
    image = ImageBuilder(b"\x90" * 0x2000).build()
    found = functions(image, missing=BASE + 0x2000)
    assert found.code(BASE + 0x2000 - 3, 15) == b"\x90" * 3
    assert found.code(BASE + 0x2000, 15) == b""
