# SPDX-License-Identifier: Apache-2.0
"""ThreadList, ThreadInfoList and ThreadNames."""

from __future__ import annotations

import io
import struct

from tests.support.minidump_parts import Parts
from throwstack.core.registers import Arch, Registers
from throwstack.minidump.dumped import DumpedThread, Span
from throwstack.minidump.minidump_file import MinidumpFile, Placement
from throwstack.minidump.thread_context import made_context
from throwstack.minidump.thread_streams import thread_info_list, thread_list, thread_names, write_contexts

WAITS = DumpedThread(
    0x1234,
    teb=0x7FFDE000,
    context=made_context(Arch.X86, Registers(0x7C8285EC, (0,) * 8)),
    suspend_count=1,
    priority=8,
    name="worker",
    created=132_000_000_000_000_000,
    user_time=5,
    start=0x401000,
)
NO_REGISTERS = DumpedThread(0x1238, priority=-15, problem="the thread was running")


def new_file() -> tuple[MinidumpFile, io.BytesIO]:
    out = io.BytesIO()
    return MinidumpFile(out, 3, time=0, flags=0), out


def test_each_thread_has_a_context_and_one_without_registers_has_one_that_names_none():
    file, out = new_file()
    contexts = write_contexts(file, Arch.X86, [WAITS, NO_REGISTERS])
    stacks = {0: Span(0x12F000, 0x130000)}
    stream = thread_list([WAITS, NO_REGISTERS], contexts, stacks, lambda span: Placement(span.end - span.start, 0x500))
    count, first, second = stream[:4], stream[4:52], stream[52:]
    assert count == b"\2\0\0\0"
    thread = struct.unpack("<IIIIQQIIII", first)
    assert thread[:8] == (0x1234, 1, 0, 8, 0x7FFDE000, 0x12F000, 0x1000, 0x500)
    assert thread[8:] == contexts[0]
    assert out.getvalue()[contexts[0].rva :][:716] == WAITS.context.data
    thread = struct.unpack("<IIIIQQIIII", second)
    assert thread[:8] == (0x1238, 0, 0, 0xFFFFFFF1, 0, 0, 0, 0)
    assert out.getvalue()[contexts[1].rva :][:4] == b"\0\0\1\0"


def test_times_and_start_addresses():
    file, out = new_file()
    size, rva = thread_info_list(file, [WAITS])
    head = struct.unpack_from("<III", out.getvalue(), rva)
    entry = struct.unpack_from("<IIIIQQQQQQ", out.getvalue(), rva + 12)
    assert (head, size) == ((12, 64, 1), 12 + 64)
    assert entry == (0x1234, 0, 0, 0, 132_000_000_000_000_000, 0, 0, 5, 0x401000, 0)


def test_names_are_those_of_the_threads_that_have_one():
    file, out = new_file()
    size, rva = thread_names(file, [WAITS, NO_REGISTERS])
    count, tid, name = struct.unpack_from("<IIQ", out.getvalue(), rva)
    assert (count, tid, size) == (1, 0x1234, 16)
    file.finish()
    assert Parts.of(out).string(name) == "worker"
