# SPDX-License-Identifier: Apache-2.0
"""First bytes of many kinds of file, as their formats define them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.dump_headers import Buffer, header32, header64
from throwstack.crashdump.file_kind import FileKind, identify


def elf(kind: int) -> bytes:
    return b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HH", kind, 62) + bytes(44)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", FileKind.EMPTY),
        (bytes(0x10000), FileKind.RAW),
        (bytes(header64()), FileKind.CRASH_DUMP),
        (bytes(header32()), FileKind.CRASH_DUMP),
        (bytes(header64()[:0x1000]), FileKind.CUT_HEADER),
        (bytes(header32()[:0xFFF]), FileKind.CUT_HEADER),
        (b"MDMP\x93\xa7\0\0" + bytes(0x100), FileKind.USER_MINIDUMP),
        (elf(4), FileKind.ELF_CORE),
        (elf(3), FileKind.EXECUTABLE),
        (b"EMiL\1\0\0\0" + bytes(24), FileKind.LIME),
        (struct.pack("<I", 0x4C4D5641) + bytes(28), FileKind.AVML),
        (b"\xd0\xbe\xd2\xbe" + bytes(8), FileKind.VMWARE),
        (b"QEVM\0\0\0\3", FileKind.QEMU),
        (b"HIBR" + bytes(0x1000), FileKind.HIBERNATION),
        (b"PK\x03\x04" + bytes(30), FileKind.COMPRESSED),
        (b"\x1f\x8b\x08" + bytes(30), FileKind.COMPRESSED),
        (b"EVF\x09\x0d\x0a\xff\x00\x01", FileKind.EXPERT_WITNESS),
        (b"MZ\x90\0" + bytes(0x1000), FileKind.EXECUTABLE),
        (b"Opened log file 'x'\r\n0: kd> !process 0 0\r\n", FileKind.TEXT),
        ("\ufeffOpened log file".encode("utf-16-le"), FileKind.TEXT),
        ("Fehler: Gerät nicht gefunden\n".encode(), FileKind.TEXT),
    ],
)
def test_a_file_is_known_by_its_first_bytes(data: bytes, kind: FileKind):
    assert identify(Buffer(data)).kind is kind


def test_a_crash_dump_is_described_in_words():
    assert identify(Buffer(header64(6))).text == (
        "Windows crash dump, 64-bit: kernel, active or live memory dump with a bitmap (type 6)"
    )
    assert identify(Buffer(header32(0x99))).text == "Windows crash dump, 32-bit: unknown type 0x99"


@given(st.binary(max_size=300))
def test_every_file_has_a_kind_in_words(data: bytes):
    assert identify(Buffer(data)).text
