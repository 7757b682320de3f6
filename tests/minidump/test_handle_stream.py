# SPDX-License-Identifier: Apache-2.0
"""The stream HandleData."""

from __future__ import annotations

import io
import struct

from tests.support.minidump_parts import Parts
from throwstack.minidump.dumped import DumpedHandle
from throwstack.minidump.handle_stream import handle_data
from throwstack.minidump.minidump_file import MinidumpFile


def test_handles_with_and_without_a_name():
    out = io.BytesIO()
    file = MinidumpFile(out, 1, time=0, flags=0)
    event = DumpedHandle(0x2C, "Event", r"\BaseNamedObjects\go", 2, 0x1F0003, 1, 32768)
    size, rva = handle_data(file, [event, DumpedHandle(0x30, "")])
    file.finish()
    assert (size, struct.unpack_from("<IIII", out.getvalue(), rva)) == (16 + 64, (16, 32, 2, 0))
    first = struct.unpack_from("<QIIIIII", out.getvalue(), rva + 16)
    parts = Parts.of(out)
    assert (first[0], parts.string(first[1]), parts.string(first[2])) == (0x2C, "Event", r"\BaseNamedObjects\go")
    assert first[3:] == (2, 0x1F0003, 1, 32768)
    assert struct.unpack_from("<QIIIIII", out.getvalue(), rva + 48) == (0x30, 0, 0, 0, 0, 0, 0)
