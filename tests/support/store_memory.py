# SPDX-License-Identifier: Apache-2.0
"""The memory of a compressed store laid down byte by byte, for build 17763 on x64."""

from __future__ import annotations

import struct

from tests.forge.xpress import compress
from throwstack.core.memory import PAGE_SIZE

KERNEL = 0xFFFFC00000000000
GLOBALS, METADATA, STORE, CHUNKS, CHUNK, REGIONS = (KERNEL + at * 0x10000 for at in range(1, 7))
ROOT, LEFT, RIGHT, PAGES = (KERNEL + 0x100000 + at * 0x1000 for at in range(4))
OWNER = KERNEL + 0x200000
REGION = 0x1A0000
FILE = 2
TEXT, NOISE = (b"committed long ago " * 300)[:PAGE_SIZE], bytes(range(256)) * 16
PACKED = compress(TEXT)


class Laid:
    """Memory that is written to at will."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}

    def page(self, address: int) -> bytes | None:
        found = self.pages.get(address)
        return None if found is None else bytes(found)

    def put(self, address: int, code: str, *values: int) -> None:
        self.write(address, struct.pack("<" + code, *values))

    def write(self, address: int, data: bytes) -> None:
        for at, byte in enumerate(data, address):
            self.pages.setdefault(at & -PAGE_SIZE, bytearray(PAGE_SIZE))[at % PAGE_SIZE] = byte


def lay() -> tuple[Laid, Laid]:
    """Return the kernel's memory and the owner's: store 33 has page 0x1234, compressed, and page 5, as it was."""
    kernel, owner = Laid(), Laid()
    kernel.put(GLOBALS + 1 * 8, "Q", METADATA)
    kernel.put(GLOBALS + 0x1C0, "Q", ROOT)
    kernel.put(ROOT, "HBB4xQ I4xQ", 1, 1, 0, LEFT, 0x20001000, RIGHT)
    kernel.put(LEFT, "HBB4xQ II", 1, 0, 1, 0, 0x20000005, 33)
    kernel.put(RIGHT, "HBB4xQ IIII", 2, 0, 1, 0, 0x20001000, 0x01000021, 0x20001234, 0x00040021)
    kernel.put(METADATA + 1 * 0x28, "Q", STORE)
    kernel.put(STORE + 0x50, "Q", PAGES)
    kernel.put(PAGES, "HBB4xQ IIII", 2, 0, 1, 0, 0x20000005, 5 << 4 | 2, 0x20001234, 6 << 4 | 15)
    # Chunks 4 to 7 are in array 2; a chunk has 16 records of 16 bytes after 0x30 bytes.
    kernel.put(STORE + 0x110 + 2 * 8, "Q", CHUNKS)
    kernel.put(STORE + 0x110 + 0x108, "IIIII", 4, 15, 0x10, 0, 0x30)
    kernel.put(CHUNKS + 1 * 0x10, "QQQQ", CHUNK, 0, CHUNK + 0x1000, 0)
    kernel.put(CHUNK + 0x30 + 2 * 0x10, "II", 1 << 12 | 0xF80, PAGE_SIZE)
    kernel.put(CHUNK + 0x1000 + 0x30 + 15 * 0x10, "II", 0 << 12 | 3, len(PACKED))
    kernel.put(STORE + 0x50 + 0x328, "II", 0xFFF, 12)
    kernel.put(STORE + 0x50 + 0x3E0, "H", 3)
    kernel.put(STORE + 0x1848, "Q", REGIONS)
    kernel.put(STORE + 0x19A8, "Q", OWNER)
    kernel.put(REGIONS, "QQ", REGION, REGION + 0x50000)
    owner.write(REGION + 0x30, PACKED)
    owner.write(REGION + 0x50000 + 0xF800, NOISE)
    return kernel, owner
