# SPDX-License-Identifier: Apache-2.0
"""What is read from an image in memory: exports, wherever its sections lie in the file."""

from __future__ import annotations

import pytest

from tests.unwind.x64.assembler import ImageBuilder
from throwstack.exports import Export
from throwstack.images import Image
from throwstack.memory import memory_of
from throwstack.modules import Module

BASE = 0x180000000
NAMES = {"Alpha": 0x1000, "RtlUserThreadStart": 0x1010, "_zeta@8": 0x1008}


@pytest.mark.parametrize("raw_gap", [0, 0x1000, -0xC00])
def test_exports(raw_gap: int) -> None:
    """Microsoft's ntdll up to Windows 10 and most programs have a file alignment of 512 bytes."""
    data = ImageBuilder(b"\xcc" * 0x20, exports=NAMES, raw_gap=raw_gap).build()
    image = Image(Module("made.dll", "", BASE, len(data)), memory_of({BASE: data}))
    assert list(image.exports) == sorted((Export(rva, name) for name, rva in NAMES.items()), key=lambda e: e.rva)
