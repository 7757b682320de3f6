# SPDX-License-Identifier: Apache-2.0
"""ModuleList and UnloadedModuleList."""

from __future__ import annotations

import io
import struct

from tests.support.minidump_parts import Parts
from throwstack.minidump.dumped import DumpedModule, DumpedUnloaded
from throwstack.minidump.minidump_file import MinidumpFile
from throwstack.minidump.module_streams import module_list, unloaded_module_list

VERSION = struct.pack("<13I", 0xFEEF04BD, 0x10000, 0xA0000, 0x4A610001, *[0] * 9)


def test_a_module_with_its_name_version_and_codeview_record():
    out = io.BytesIO()
    file = MinidumpFile(out, 1, time=0, flags=0)
    shop = DumpedModule(r"C:\shop.exe", 0x140000000, 0x9000, 0x1234, 0x60000000, VERSION, b"RSDS" + bytes(24))
    size, rva = module_list(file, [shop, DumpedModule("x", 0x10000, 1 << 40)])
    file.finish()
    assert size == 4 + 2 * 108
    stream = out.getvalue()[rva : rva + size]
    base, image_size, checksum, timestamp, name = struct.unpack_from("<QIIII", stream, 4)
    assert (base, image_size, checksum, timestamp) == (0x140000000, 0x9000, 0x1234, 0x60000000)
    assert Parts.of(out).string(name) == r"C:\shop.exe"
    assert stream[28:80] == VERSION
    codeview = struct.unpack_from("<II", stream, 80)
    assert Parts.of(out).part(*codeview) == b"RSDS" + bytes(24)
    base, image_size = struct.unpack_from("<QI", stream, 112)
    assert (base, image_size) == (0x10000, 0xFFFFFFFF)
    assert stream[136:216] == bytes(80)


def test_a_module_that_was_unloaded():
    out = io.BytesIO()
    file = MinidumpFile(out, 1, time=0, flags=0)
    size, rva = unloaded_module_list(file, [DumpedUnloaded("gone.dll", 0x10000000, 0x4000, 1, 2)])
    file.finish()
    head = struct.unpack_from("<III", out.getvalue(), rva)
    base, image_size, checksum, timestamp, name = struct.unpack_from("<QIIII", out.getvalue(), rva + 12)
    assert (head, size) == ((12, 24, 1), 36)
    assert (base, image_size, checksum, timestamp) == (0x10000000, 0x4000, 1, 2)
    assert Parts.of(out).string(name) == "gone.dll"
