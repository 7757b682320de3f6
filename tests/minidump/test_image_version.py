# SPDX-License-Identifier: Apache-2.0
"""Versions from resources, and CodeView records."""

from __future__ import annotations

import struct

import pytest

from throwstack.core.memory import Memory, SegmentSource
from throwstack.images.image import Image, PdbIdentity, parse_rsds
from throwstack.images.modules import Module
from throwstack.minidump.image_version import codeview_record, fixed_file_info

BASE = 0x140000000
FIXED = struct.pack("<13I", 0xFEEF04BD, 0x10000, 0xA0000, 0x4A610001, *range(9))


def mapped(magic: int, *, kind: int = 16) -> bytes:
    """An image whose resource directory is at 0x1000, with one resource of a kind: a name, a language, its data."""
    image = bytearray(0x2000)
    struct.pack_into("<I", image, 0x3C, 0x80)
    struct.pack_into("<H", image, 0x98, magic)
    struct.pack_into("<I", image, 0x98 + (96 if magic == 0x10B else 112) + 16, 0x1000)
    for at, identity, below in ((0, kind, 0x80000020), (0x20, 1, 0x80000040), (0x40, 1033, 0x60)):
        struct.pack_into("<HHII", image, 0x1000 + at + 12, 0, 1, identity, below)
    struct.pack_into("<I", image, 0x1060, 0x1100)
    image[0x1128 : 0x1128 + 52] = FIXED
    return bytes(image)


def image_of(data: bytes) -> Image:
    return Image(Module("a.dll", "", BASE, 0x2000), Memory(SegmentSource({BASE: data})))


@pytest.mark.parametrize("magic", [0x10B, 0x20B])
def test_the_version_is_found_through_three_directories(magic: int):
    assert fixed_file_info(image_of(mapped(magic))) == FIXED


def test_an_image_without_a_version_or_whose_resources_are_absent_has_none():
    assert fixed_file_info(image_of(mapped(0x20B, kind=24))) == b""
    assert fixed_file_info(image_of(mapped(0x20B)[:0x1000])) == b""
    assert fixed_file_info(image_of(b"MZ")) == b""


def test_what_is_no_version_is_not_taken_for_one():
    data = bytearray(mapped(0x20B))
    data[0x1128] ^= 1
    assert fixed_file_info(image_of(bytes(data))) == b""


def test_a_directory_that_leads_to_itself_ends():
    data = bytearray(mapped(0x20B))
    struct.pack_into("<I", data, 0x1044 + 16, 0x80000000)
    assert fixed_file_info(image_of(bytes(data))) == b""


def test_a_codeview_record_has_the_identity_that_it_was_made_of():
    identity = PdbIdentity("shop.pdb", "0123456789ABCDEF0123456789ABCDEF", 3)
    assert parse_rsds(codeview_record(identity)) == identity
    assert codeview_record(None) == b""
