# SPDX-License-Identifier: Apache-2.0
"""Whole minidumps: which streams they have, and where what is known last goes."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.minidump_parts import Pages, Parts, process
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import StackBounds
from throwstack.core.memory import PAGE_SIZE
from throwstack.core.registers import Arch, Registers
from throwstack.minidump import write_minidump
from throwstack.minidump.dumped import (
    DumpedException,
    DumpedModule,
    DumpedRegion,
    DumpedThread,
    DumpedUnloaded,
    MadeContext,
    Span,
)
from throwstack.minidump.full_memory import FullMemory, Limits
from throwstack.minidump.memory_lists import COMMIT
from throwstack.minidump.small_memory import Picked
from throwstack.minidump.thread_context import made_context
from throwstack.minidump.write_minidump import write_full, write_small

STACK = 0x20000
PAGES = {STACK: b"stack", STACK + PAGE_SIZE: b"more", 0x50000: b"heap"}
THREAD = DumpedThread(
    8,
    teb=0x7000,
    context=made_context(Arch.X64, Registers(0x401000, (*[0] * 4, STACK + 8, *[0] * 11))),
    registers=Registers(0x401000, (*[0] * 4, STACK + 8, *[0] * 11)),
    stack=StackBounds(STACK, STACK + 2 * PAGE_SIZE),
)
REGIONS = tuple(
    DumpedRegion(Span(start, start + size), start, 4, COMMIT, 4, 0x20000)
    for start, size in ((STACK, 0x10000), (0x50000, 0x10000))
)
GIVEN = process(pages=PAGES, threads=(THREAD,), regions=REGIONS, comment="made by hand\n", time=132_223_104_000_000_000)


class Everywhere(Pages):
    """All pages of a region may be readable."""

    def candidates(self, span: Span) -> Iterator[Span]:
        yield span


def small() -> Parts:
    out = io.BytesIO()
    picked = Picked(
        (Span(STACK + 8, STACK + 2 * PAGE_SIZE), Span(0x50010, 0x50020)), {0: Span(STACK + 8, STACK + 0x2000)}, 24, True
    )
    written = write_small(out, GIVEN, picked)
    parts = Parts.of(out)
    assert written.size == len(parts.data)
    assert [what.partition(" ")[0] for what in written.left_out] == ["24", "stacks"]
    return parts


def test_a_small_one_has_the_chosen_memory_and_stacks_lead_into_it():
    parts = small()
    assert sorted(parts.memory) == [STACK + 8, 0x50010]
    assert parts.memory[0x50010] == bytes(16)
    assert parts.memory[STACK + 8] == b"".join(GIVEN.page(at) for at in (STACK, STACK + PAGE_SIZE))[8:]
    (thread,) = parts.threads
    assert thread[5] == STACK + 8
    assert parts.part(thread[6], thread[7]) == parts.memory[STACK + 8]
    assert parts.comment == (
        "made by hand\nleft out: 24 bytes of stacks and data that are not in the image\n"
        "left out: stacks or data beyond the limit of a small minidump\n"
    )
    assert (parts.time, parts.flags & 2) == (1577836800, 0)


def test_streams_without_contents_are_left_out():
    assert set(small().streams) == {
        "system",
        "misc",
        "modules",
        "thread-info",
        "threads",
        "memory",
        "memory-info",
        "comment",
    }


def test_all_streams():
    out = io.BytesIO()
    record = ExceptionRecord(0xC0000005, 0, 0x401000, 0, (0, 0), 0x30000, 2)
    given = replace(
        GIVEN,
        threads=(replace(THREAD, name="worker"),),
        modules=(DumpedModule("a.exe", 0x400000, 0x1000),),
        unloaded=(DumpedUnloaded("b.dll", 0x500000, 0x1000),),
        exception=DumpedException(8, record, MadeContext(bytes(1232))),
    )
    write_small(out, given, Picked((), {}, 0, is_cut=False))
    names = set(Parts.of(out).streams)
    assert {"exception", "unloaded", "thread-names"} <= names
    assert "memory64" not in names


def full() -> Parts:
    out = io.BytesIO()
    memory = FullMemory(Everywhere(PAGES), REGIONS, Limits(1 << 21, 1 << 30))
    write_full(out, GIVEN, memory, {0: Span(STACK + 8, STACK + 0x2000)})
    return Parts.of(out)


def check_full(parts: Parts) -> None:
    assert {at: data[:5] for at, data in parts.memory.items()} == {STACK: b"stack", 0x50000: b"heap\0"}
    assert parts.flags & 2
    assert [(region[0], region[3], region[4]) for region in parts.regions[:2]] == [
        (STACK, 0x2000, COMMIT),
        (STACK + 0x2000, 0xE000, COMMIT),
    ]
    (thread,) = parts.threads
    assert parts.part(thread[6], thread[7]).startswith(bytes(PAGES[STACK].ljust(PAGE_SIZE, b"\0"))[8:])


def test_a_full_one_has_its_lists_after_the_memory():
    parts = full()
    check_full(parts)
    (base,) = struct.unpack_from("<Q", parts.streams["memory64"], 8)
    assert parts.data.index(parts.streams["memory64"]) > base


def test_a_full_one_that_may_reach_beyond_4_gib_has_its_lists_before_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(write_minidump, "_SMALL_ENOUGH", 0x10000)
    parts = full()
    check_full(parts)
    (base,) = struct.unpack_from("<Q", parts.streams["memory64"], 8)
    assert parts.data.index(parts.streams["memory64"]) < base
    assert parts.data.index(parts.streams["memory-info"]) < base
    assert "made by hand" in parts.comment
