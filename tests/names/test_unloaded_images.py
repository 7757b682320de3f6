# SPDX-License-Identifier: Apache-2.0
"""Unloaded images, as ntdll and the kernel remember them, in memory that the tests write."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pe_writer import DATA, X64, X86, Pe, Section
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch
from throwstack.images.image import Image
from throwstack.images.modules import Module
from throwstack.names.unloaded_images import UnloadedImage, name_of_unloaded, unloaded_dlls, unloaded_drivers

BASE, ARRAY = 0x7C800000, 0x2000
GONE, OLDER = UnloadedImage("gone.dll", 0x10000000, 0x9000, 7), UnloadedImage("older.dll", 0x10004000, 0x8000, 3)


def element(image: UnloadedImage, pointer: int, version: int) -> bytes:
    """RTL_UNLOAD_EVENT_TRACE, with or without the two words of the image's version."""
    words = "<QQ" if pointer == 8 else "<II"
    data = struct.pack(words, image.base, image.size) + struct.pack("<III", image.order, 0x45C7B2D1, 0)
    data += image.name.encode("utf-16-le").ljust(64, b"\0") + bytes(version)
    return data + bytes(-len(data) % pointer)


def ntdll(code: bytes, array: bytes, machine: int) -> Image:
    pe = Pe(
        machine,
        BASE,
        sections=[Section(".text", 0x1000, code.ljust(64, b"\xcc")), Section(".data", ARRAY, array, DATA)],
        exports=[("RtlGetUnloadEventTrace", 0x1000)],
    )
    return Image(Module("ntdll.dll", "ntdll.dll", BASE, pe.size), memory_of({BASE: pe.mapped()}))


X86_CODES = [
    b"\xb8" + struct.pack("<I", BASE + ARRAY) + b"\xc3",
    b"\x8b\xff\x55\x8b\xec\xb8" + struct.pack("<I", BASE + ARRAY) + b"\x5d\xc3",
]
X64_CODE = b"\x48\x8d\x05" + struct.pack("<i", ARRAY - 0x1007) + b"\xc3"


def test_ntdlls_array_with_and_without_versions():
    for version in (0, 8):
        for code in X86_CODES:
            array = element(GONE, 4, version) + element(OLDER, 4, version)
            assert unloaded_dlls(ntdll(code, array.ljust(0x2000, b"\0"), X86), Arch.X86) == (GONE, OLDER)
        array = element(GONE, 8, version) + element(OLDER, 8, version)
        assert unloaded_dlls(ntdll(X64_CODE, array.ljust(0x2000, b"\0"), X64), Arch.X64) == (GONE, OLDER)


def test_symbols_give_the_array_if_the_function_cannot_be_read():
    image = ntdll(b"\xe9\0\0\0\0", element(GONE, 4, 0).ljust(0x2000, b"\0"), X86)
    assert unloaded_dlls(image, Arch.X86) == ()
    assert unloaded_dlls(image, Arch.X86, BASE + ARRAY) == (GONE,)


def test_the_function_may_not_lead_out_of_ntdll():
    image = ntdll(b"\xb8" + struct.pack("<I", BASE - 0x1000) + b"\xc3", b"\0" * 0x2000, X86)
    assert unloaded_dlls(image, Arch.X86) == ()


@settings(max_examples=60, derandomize=True)
@given(st.binary(max_size=600))
def test_random_bytes_in_place_of_the_array_raise_nothing(data: bytes):
    for image in unloaded_dlls(ntdll(X86_CODES[0], data.ljust(0x1000, b"\0"), X86), Arch.X86):
        assert image.base % 0x1000 == 0
        assert 0 < image.size <= 1 << 30
        assert image.name.isprintable()


def test_the_last_image_at_an_address_names_it():
    images = (OLDER, GONE)
    assert str(name_of_unloaded(images, 0x10005000)) == "<Unloaded_gone.dll>+0x5000"
    assert str(name_of_unloaded(images, 0x1000B000)) == "<Unloaded_older.dll>+0x7000"
    assert name_of_unloaded(images, 0x1000C000) is None


def test_the_kernels_unloaded_drivers_are_read():
    """Of three elements the first was never used, the second is a driver, the third has an unreadable name."""
    for pointer, element_format in ((4, "<HHIIIQ"), (8, "<HHIQQQQ")):

        def driver(buffer: int, start: int, form: str = element_format, width: int = pointer) -> bytes:
            return struct.pack(form, 24, 24, *((0,) if width == 8 else ()), buffer, start, start + 0x5000, 99)

        name = "fastprox.sys".encode("utf-16-le")
        array = bytes(len(driver(0, 0))) + driver(0x82000000, 0xF7A10000) + driver(0x90000000, 0xF7B00000)
        memory = memory_of(
            {
                0x80000000: (0x81000000).to_bytes(pointer, "little"),
                0x81000000: array.ljust(0x1000, b"\0"),
                0x82000000: name,
            }
        )
        assert unloaded_drivers(memory, 0x80000000, pointer) == (UnloadedImage("fastprox.sys", 0xF7A10000, 0x5000, 99),)
    assert unloaded_drivers(memory_of({}), 0x80000000, 4) == ()
