# SPDX-License-Identifier: Apache-2.0
"""Images with a version in their resources, laid out as the PE specification has them."""

from __future__ import annotations

import struct

BASE, RESOURCES = 0x10000000, 0x1000
DIRECTORY = 0x80000000


def directory(*entries: tuple[int, int]) -> bytes:
    """Return an IMAGE_RESOURCE_DIRECTORY with entries by ID."""
    return struct.pack("<IIHHHH", 0, 0, 0, 0, 0, len(entries)) + b"".join(struct.pack("<II", *one) for one in entries)


def resources(kind: int = 16, signature: int = 0xFEEF04BD) -> bytes:
    """Return resources: an icon's type and a version, of which the icon's entry leads nowhere."""
    tree = directory((3, 0x7000), (kind, DIRECTORY | 0x40))
    tree = tree.ljust(0x40, b"\0") + directory((1, DIRECTORY | 0x80))
    tree = tree.ljust(0x80, b"\0") + directory((0x409, 0xC0))
    tree = tree.ljust(0xC0, b"\0") + struct.pack("<IIII", RESOURCES + 0x100, 0x100, 0, 0)
    key = struct.pack("<HHH", 0x100, 52, 0) + "VS_VERSION_INFO\0".encode("utf-16-le")
    fixed = struct.pack("<IIII", signature, 0x10000, 5 << 16 | 2, 3790 << 16 | 3959)
    return tree.ljust(0x100, b"\0") + key.ljust(40, b"\0") + fixed


def image_with(tree: bytes, *, wide: bool = False, rva: int = RESOURCES) -> bytes:
    """Return two pages of an image: its headers, and its resources."""
    directories = bytes(16) + struct.pack("<II", rva, len(tree)) + bytes(13 * 8)
    fixed = struct.pack("<H", 0x20B if wide else 0x10B).ljust(56, b"\0") + struct.pack("<I", 0x8000)
    optional = fixed.ljust(108 if wide else 92, b"\0") + struct.pack("<I", 16) + directories
    header = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0"
    header += struct.pack("<HHIIIHH", 0x8664 if wide else 0x14C, 0, 0x45D6CBE2, 0, 0, len(optional), 0x102) + optional
    return (header.ljust(RESOURCES, b"\0") + tree).ljust(0x2000, b"\0")
