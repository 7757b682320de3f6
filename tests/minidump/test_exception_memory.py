# SPDX-License-Identifier: Apache-2.0
"""The memory that an exception consists of."""

from __future__ import annotations

import struct

from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.memory import Memory, SegmentSource
from throwstack.core.registers import Arch
from throwstack.images.image import ImageMap
from throwstack.images.modules import ModuleMap
from throwstack.minidump.dumped import Span
from throwstack.minidump.exception_memory import exception_memory, object_memory


def test_a_record_and_those_it_links_to():
    nested = struct.pack("<IIQQI4x", 0xC0000094, 0, 0, 0x402000, 0)
    memory = Memory(SegmentSource({0x30000: bytes(0x98), 0x51000: nested}))
    record = ExceptionRecord(0xC0000005, 0, 0x401000, 0x51000, (0, 0x18), 0x30010, 2)
    spans = list(exception_memory(memory, ImageMap(memory, ModuleMap(())), Arch.X64, record))
    assert spans[0] == Span(0x30010, 0x300A8)
    assert Span(0x51000, 0x52000) in spans


def test_objects_are_followed_for_two_steps():
    """An exception refers to its inner exception, that to a message, and that to something else."""
    segments = {
        at: struct.pack("<QQ", 0, following)
        for at, following in zip((0x10000, 0x20000, 0x30000), (0x20000, 0x30000, 0x40000), strict=True)
    }
    memory = Memory(SegmentSource({**segments, 0x40000: bytes(16)}))
    spans = list(object_memory(memory, Arch.X64, [0x10000]))
    assert [span.start + 8 for span in spans] == [0x10000, 0x20000, 0x30000]


def test_objects_that_refer_to_each_other_end():
    words = struct.pack("<32Q", *(0x10000 + 0x1000 * number for number in range(32)))
    memory = Memory(SegmentSource({0x10000 + 0x1000 * number: words for number in range(2000)}))
    assert len(list(object_memory(memory, Arch.X64, [0x10000, 0, 0x10000]))) <= 256
