# SPDX-License-Identifier: Apache-2.0
"""The stream Exception."""

from __future__ import annotations

import io
import struct

from throwstack.core.exception_record import ExceptionRecord
from throwstack.minidump.dumped import DumpedException, MadeContext
from throwstack.minidump.exception_stream import exception_stream
from throwstack.minidump.minidump_file import MinidumpFile


def test_a_record_with_its_context():
    out = io.BytesIO()
    file = MinidumpFile(out, 1, time=0, flags=0)
    record = ExceptionRecord(0xC0000005, 1, 0x7FF612345678, 0xABCD0, (1, 0x18), 0x12000, 2)
    size, rva = exception_stream(file, DumpedException(0x14C8, record, MadeContext(b"CONTEXT")))
    fields = struct.unpack_from("<IIIIQQII15QII", out.getvalue(), rva)
    assert size == 168
    assert fields[:8] == (0x14C8, 0, 0xC0000005, 1, 0xABCD0, 0x7FF612345678, 2, 0)
    assert fields[8:23] == (1, 0x18, *[0] * 13)
    context_size, context_rva = fields[23:]
    assert out.getvalue()[context_rva : context_rva + context_size] == b"CONTEXT"


def test_without_a_context_its_location_is_zero():
    out = io.BytesIO()
    file = MinidumpFile(out, 1, time=0, flags=0)
    record = ExceptionRecord(0xC0000409, 0, 0x401000, 0, tuple(range(15)), 0, 15)
    _, rva = exception_stream(file, DumpedException(8, record, None))
    assert struct.unpack_from("<15QII", out.getvalue(), rva + 40) == (*range(15), 0, 0)
