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
        (b"PK\x03\x04" + bytes(30), FileKind.ARCHIVE),
        (b"PK\x03\x04".ljust(30, b"\0") + b"container.description", FileKind.AFF4),
        (b"LibvirtQemudSave\x02\0\0\0", FileKind.LIBVIRT_SAVE),
        (b"\x7fVirtualBox SavedState V2.0\n\0\0\0", FileKind.VIRTUALBOX_SAVE),
        (b"KDUMP   \x06\0\0\0", FileKind.KDUMP),
        (b"makedumpfile\0\0\0\0" + bytes(16), FileKind.KDUMP),
        (struct.pack("<I", 0x01282014) + bytes(0x1000), FileKind.HYPER_V_STATE),
        (b"HPAK" + bytes(28), FileKind.HPAK),
        (b"vhdxfile" + bytes(512), FileKind.VIRTUAL_DISK),
        (b"KDMV\x01\0\0\0", FileKind.VIRTUAL_DISK),
        (b"# Disk DescriptorFile\nversion=1\n", FileKind.VIRTUAL_DISK),
        (b"QFI\xfb\0\0\0\x03", FileKind.VIRTUAL_DISK),
        (b"VMA\0\0\0\0\x01", FileKind.VIRTUAL_DISK),
        (b"memory.raw".ljust(257, b"\0") + b"ustar\x0000", FileKind.ARCHIVE),
        (b"\x1f\x8b\x08" + bytes(30), FileKind.COMPRESSED),
        (b"EVF\x09\x0d\x0a\xff\x00\x01", FileKind.EXPERT_WITNESS),
        (b"MZ\x90\0" + bytes(0x1000), FileKind.EXECUTABLE),
        (b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0", FileKind.PDB),
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


def test_a_disk_is_named_after_its_format():
    assert identify(Buffer(b"QFI\xfb\0\0\0\x03")).text == "virtual disk (QCOW2)"


@pytest.mark.parametrize(
    ("streams", "text"), [((3, 6), ", with its exception"), ((3, 4), ", no exception"), ((), ", no exception")]
)
def test_a_minidump_has_an_exception_stream_or_not(streams: tuple[int, ...], text: str):
    directory = b"".join(struct.pack("<III", kind, 0, 0) for kind in streams)
    data = struct.pack("<4sIII", b"MDMP", 0xA793, len(streams), 32).ljust(32, b"\0") + directory
    assert identify(Buffer(data)).text == f"minidump of one process{text}"


def test_a_hibernation_file_that_windows_has_resumed_from_has_zeros_for_a_header():
    data = bytes(0x1000) + b"\x81\x81xpress" + bytes(0x1000)
    assert identify(Buffer(data), "hiberfil.sys").kind is FileKind.ZEROED_HIBERNATION
    assert identify(Buffer(data), "memory.raw").kind is FileKind.RAW


@given(st.binary(max_size=300))
def test_every_file_has_a_kind_in_words(data: bytes):
    assert identify(Buffer(data)).text
