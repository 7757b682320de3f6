# SPDX-License-Identifier: Apache-2.0
"""PEB, process parameters and the loader's list, laid out by hand."""

from __future__ import annotations

import struct

from throwstack.core.memory import Memory, SegmentSource
from throwstack.core.registers import Arch
from throwstack.minidump.dumped import Span
from throwstack.minidump.loader_data import loader_data

PEB, LDR, ENTRY, PARAMETERS, TEXT, ENVIRONMENT = (0x10000 * number for number in range(1, 7))


def at(*words: tuple[int, int]) -> bytes:
    data = bytearray(0x500)
    for offset, value in words:
        struct.pack_into("<Q", data, offset, value)
    return bytes(data)


def segments() -> dict[int, bytes]:
    return {
        PEB: at((0x18, LDR), (0x20, PARAMETERS)),
        LDR: at((0x10, ENTRY)),
        ENTRY: at((0, LDR + 0x10), (0x48, 20), (0x50, TEXT), (0x58, 0)),
        PARAMETERS: at((0x70, 40), (0x78, TEXT + 0x100), (0x80, ENVIRONMENT)),
        ENVIRONMENT: "A=1\0B=2\0\0".encode("utf-16-le") + b"x" * 100,
    }


def test_what_a_debugger_reads_of_every_process():
    spans = list(loader_data(Memory(SegmentSource(segments())), PEB, Arch.X64))
    assert Span(PEB, PEB + 0x800) in spans
    assert Span(PARAMETERS, PARAMETERS + 0x440) in spans
    assert Span(TEXT + 0x100, TEXT + 0x100 + 42) in spans  # the command line, with its zero
    assert Span(ENTRY, ENTRY + 0x120) in spans
    assert Span(TEXT, TEXT + 22) in spans
    (environment,) = (span for span in spans if span.start == ENVIRONMENT)
    assert 18 <= environment.end - environment.start <= 22


def test_a_list_that_leads_back_to_an_entry_ends_and_an_absent_page_ends_a_chain():
    given = segments()
    given[ENTRY] = at((0, ENTRY))
    del given[PARAMETERS]
    spans = list(loader_data(Memory(SegmentSource(given)), PEB, Arch.X64))
    assert spans.count(Span(ENTRY, ENTRY + 0x120)) == 1
    assert list(loader_data(Memory(SegmentSource({})), PEB, Arch.X64)) == [Span(PEB, PEB + 0x800)]
    assert list(loader_data(Memory(SegmentSource({})), 0, Arch.X64)) == []
