# SPDX-License-Identifier: Apache-2.0
"""SystemInfo, MiscInfo and the comment."""

from __future__ import annotations

import io
import struct

from tests.support.minidump_parts import Parts, process
from throwstack.core.registers import Arch
from throwstack.minidump.dumped import DumpedSystem, XStateLayout
from throwstack.minidump.minidump_file import MinidumpFile
from throwstack.minidump.system_streams import MAX_COMMENT, comment, misc_info, system_info, unix_time

NEW_YEAR_2020 = 132_223_104_000_000_000


def test_a_machine_of_x86_says_what_its_processor_is():
    out = io.BytesIO()
    file = MinidumpFile(out, 1, time=0, flags=0)
    system = DumpedSystem(
        Arch.X86, 2, 15, 0x0401, 3, (5, 2, 3790), "Service Pack 2", 0x112, b"GenuineIntel", 0xF41, 0xBFEBFBFF
    )
    size, rva = system_info(file, system)
    file.finish()
    fields = struct.unpack_from("<HHHBBIIIIIHH12sIII", out.getvalue(), rva)
    assert size == 56
    assert fields[:9] == (0, 15, 0x0401, 2, 3, 5, 2, 3790, 2)
    assert Parts.of(out).string(fields[9]) == "Service Pack 2"
    assert fields[10:] == (0x112, 0, b"GenuineIntel", 0xF41, 0xBFEBFBFF, 0)


def test_a_machine_of_x64_has_the_features_of_its_processor():
    out = io.BytesIO()
    file = MinidumpFile(out, 1, time=0, flags=0)
    _, rva = system_info(file, DumpedSystem(Arch.X64, processors=300, features=(0x2F4, 1)))
    architecture, _, _, processors = struct.unpack_from("<HHHB", out.getvalue(), rva)
    assert (architecture, processors) == (9, 255)
    assert struct.unpack_from("<QQ", out.getvalue(), rva + 32) == (0x2F4, 1)


def test_times_of_a_process_are_seconds():
    out = io.BytesIO()
    file = MinidumpFile(out, 1, time=0, flags=0)
    given = process(created=NEW_YEAR_2020, kernel_time=30_000_000, user_time=70_000_000)
    size, rva = misc_info(file, given)
    assert (size, struct.unpack_from("<IIIIII", out.getvalue(), rva)) == (832, (832, 3, 4660, 1577836800, 7, 3))


def test_a_process_whose_times_are_not_known_does_not_say_that_it_has_some():
    out = io.BytesIO()
    _, rva = misc_info(MinidumpFile(out, 1, time=0, flags=0), process())
    assert struct.unpack_from("<III", out.getvalue(), rva) == (832, 1, 4660)


def test_the_layout_of_extended_state_is_after_the_build_string():
    out = io.BytesIO()
    layout = XStateLayout(7, 0x340, ((0, 160), (160, 256), (576, 256)))
    given = process(system=DumpedSystem(Arch.X64, build_string="19041.1.amd64fre"), xstate=layout)
    size, rva = misc_info(MinidumpFile(out, 1, time=0, flags=0), given)
    data = out.getvalue()[rva : rva + size]
    assert (size, struct.unpack_from("<II", data)) == (1364, (1364, 0x101))
    assert data[232:752].decode("utf-16-le").rstrip("\0") == "19041.1.amd64fre"
    assert struct.unpack_from("<IIQ6I", data, 832) == (528, 0x340, 7, 0, 160, 160, 256, 576, 256)


def test_a_comment_ends_with_a_zero_and_is_not_endless():
    assert comment("a\n") == b"a\0\n\0\0\0"
    long = comment("x" * (MAX_COMMENT + 1)).decode("utf-16-le")
    assert (len(long), long[-3:]) == (MAX_COMMENT + 1, "x…\0")


def test_times_before_1970_are_zero_and_those_after_2106_are_the_last():
    assert (unix_time(0), unix_time(NEW_YEAR_2020), unix_time(1 << 63)) == (0, 1577836800, 0xFFFFFFFF)
