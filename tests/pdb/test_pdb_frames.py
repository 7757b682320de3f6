# SPDX-License-Identifier: Apache-2.0
"""Frame records of a PDB: what each says, and which of them covers an address."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.compiled_pdb import compiled_pdb
from tests.support.held_stream import HeldStream
from tests.support.llvm_pdbutil import pdbutil
from throwstack.names.frame_records import FrameData, annotation
from throwstack.pdb.dbi import Dbi, DebugStream
from throwstack.pdb.info_stream import read_info
from throwstack.pdb.msf import MsfFile
from throwstack.pdb.omap import Omap
from throwstack.pdb.pdb_frames import PdbFrames
from throwstack.pdb.string_table import StringTable

PROGRAM = "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + ="
NAMES = {0: "", 1: PROGRAM, 2: "whole", 3: "after push", 4: "inner"}
WHOLE, AFTER_PUSH, INNER = 2, 3, 4
FPO, TRAP, TSS, NON_FPO = range(4)


def frame_data(  # noqa: PLR0917 the fields of the record
    rva: int, size: int, program: int = 1, local=0, parameters=0, saved=0, prologue=0, flags=0
) -> bytes:
    return struct.pack("<IIIIIIHHI", rva, size, local, parameters, 0, program, prologue, saved, flags)


def fpo(rva: int, size: int, bits: int = 0, *, local: int = 0, parameters: int = 0, kind: int = FPO) -> bytes:
    return struct.pack("<IIIHH", rva, size, local, parameters, bits | kind << 14)


def frames(*records: bytes, omap: Omap | None = None) -> PdbFrames:
    """Make the frame records of a PDB: those of 32 bytes are FrameData, those of 16 bytes FPO_DATA."""
    streams = (HeldStream(b"".join(r for r in records if len(r) == size)) for size in (32, 16))
    return PdbFrames(*streams, lambda offset: NAMES.get(offset, str(offset)), omap)


def test_a_frame_data_record_says_where_the_caller_is():
    record = frames(frame_data(0x1100, 0x40, 1, local=12, parameters=4, saved=8, prologue=5, flags=4)).find(0x1110)
    assert record == FrameData(0x1100, 0x40, 5, 4, 8, 12, PROGRAM, uses_base_pointer=False, is_function_start=True)


@pytest.mark.parametrize(
    ("flags", "seh", "eh", "start"), [(0, 0, 0, 0), (1, 1, 0, 0), (2, 0, 1, 0), (4, 0, 0, 1), (7, 1, 1, 1)]
)
def test_flags_of_a_frame_data_record(flags, seh, eh, start):
    record = frames(frame_data(0x1100, 0x40, flags=flags)).find(0x1100)
    assert (record.has_seh, record.has_eh, record.is_function_start) == (seh, eh, start)


def test_fpo_data_counts_words():
    record = frames(fpo(0x2000, 16, bits=0x0201, local=3, parameters=2)).find(0x2000)
    assert record == FrameData(0x2000, 16, 1, 8, 8, 12, "", uses_base_pointer=False)


def test_the_bits_of_fpo_data_are_those_of_winnt():
    """LLVM takes bit 10 for "uses ebp" and four bits for the prologue; both are wrong for these records."""
    four_saved = frames(fpo(0x2000, 16, bits=4 << 8 | 0x25)).find(0x2000)
    assert (four_saved.saved_registers_size, four_saved.uses_base_pointer, four_saved.prologue_size) == (
        16,
        False,
        0x25,
    )
    uses_ebp = frames(fpo(0x2000, 16, bits=1 << 12)).find(0x2000)
    assert (uses_ebp.saved_registers_size, uses_ebp.uses_base_pointer) == (0, True)
    assert frames(fpo(0x2000, 16, bits=1 << 11)).find(0x2000).has_seh


def test_the_innermost_record_counts():
    """Clang writes a record for each step of the prologue, which reaches to the end of the function."""
    table = frames(frame_data(0x1000, 0x15, WHOLE), frame_data(0x1001, 0x14, AFTER_PUSH), frame_data(0x1005, 4, INNER))
    found = {rva: table.find(rva) for rva in (0xFFF, 0x1000, 0x1001, 0x1005, 0x1008, 0x1009, 0x1014, 0x1015)}
    assert {rva: record.program if record else None for rva, record in found.items()} == {
        0xFFF: None,
        0x1000: "whole",
        0x1001: "after push",
        0x1005: "inner",
        0x1008: "inner",
        0x1009: "after push",
        0x1014: "after push",
        0x1015: None,
    }


def test_of_two_records_that_start_together_the_shorter_counts():
    for records in ([(0x1000, 0x20, WHOLE), (0x1000, 8, INNER)], [(0x1000, 8, INNER), (0x1000, 0x20, WHOLE)]):
        table = frames(*(frame_data(*record) for record in records))
        assert (table.find(0x1007).program, table.find(0x1008).program) == ("inner", "whole")


def test_frame_data_is_preferred_to_fpo_data():
    table = frames(fpo(0x1000, 0x20), frame_data(0x1010, 0x10))
    assert table.find(0x1000).program == ""
    assert table.find(0x1010).program == PROGRAM


def test_kv_shows_the_record_of_the_whole_function():
    table = frames(fpo(0x1000, 0x20, local=5), frame_data(0x1010, 0x10, local=4))
    assert annotation(table.described(0x1010)) == "FPO: [0,5,0]"
    assert annotation(frames(frame_data(0x1010, 0x10, local=4)).described(0x1010)) == "FPO: [0,1,0]"
    assert annotation(frames(fpo(0x1000, 0x20, kind=NON_FPO)).described(0x1010)) == "FPO: [Non-Fpo]"


def test_a_handler_in_any_record_that_covers_the_address_is_said():
    """Visual C++ puts the flag into the FrameData record, and `kv` shows the FPO_DATA record of the function."""
    table = frames(fpo(0x1000, 0x20), frame_data(0x1000, 0x20, flags=1), frame_data(0x1004, 0x1C))
    assert annotation(table.described(0x1010)) == "FPO: [SEH]"
    assert table.find(0x1010).has_seh
    assert table.find(0x1020) is None


@pytest.mark.parametrize("kind", [TRAP, TSS, NON_FPO])
def test_records_of_what_is_no_frame_without_frame_pointer_are_left_out(kind):
    """FRAME_NONFPO counts locals and registers, but not the saved ebp between them and the return address."""
    table = frames(fpo(0x1000, 0x20, kind=kind), fpo(0x2000, 0x20))
    assert table.find(0x1000) is None
    assert table.find(0x2000) is not None


def test_a_record_follows_code_that_was_moved():
    """Bytes 1008 to 100f of the function at 1000 were moved to 5000; a jump of five bytes was inserted after 7007."""
    omap = Omap(HeldStream(struct.pack("<6I", 0x1000, 0x7000, 0x1008, 0x5000, 0x1010, 0)))
    table = frames(frame_data(0x1000, 0x10, prologue=12, flags=4), omap=omap)
    assert table.find(0x7004) == FrameData(
        0x7000, 8, 12, 0, 0, 0, PROGRAM, uses_base_pointer=False, is_function_start=True
    )
    moved = table.find(0x5004)
    assert (moved.rva, moved.size, moved.prologue_size, moved.is_function_start) == (0x5000, 8, 4, False)
    assert table.find(0x7008) is None
    assert table.find(0x1004) is None


def test_an_incomplete_record_at_the_end_is_left_out():
    assert frames().find(0x1000) is None
    table = PdbFrames(HeldStream(frame_data(0x1000, 8) + bytes(31)), HeldStream(bytes(15)), NAMES.__getitem__)
    assert table.find(0x1000) is not None
    assert table.find(0) is None


def test_few_bytes_are_read_for_an_address():
    stream = HeldStream(b"".join(frame_data(0x1000 + 0x10 * number, 0x10) for number in range(10_000)))
    table = PdbFrames(stream, HeldStream(), NAMES.__getitem__)
    assert table.find(0x1000).rva == 0x1000
    stream.reads.clear()
    assert table.find(0x1000 + 0x10 * 7000 + 5).rva == 0x1000 + 0x10 * 7000
    assert sum(size for _, size in stream.reads) <= 128 * 32


def test_addresses_after_many_records_that_do_not_cover_them_take_no_longer():
    """One record covers the whole image, the others a byte each: the search goes back over all of them."""
    records = [frame_data(0x1000 + number, 1, WHOLE) for number in range(1, 10_000)]
    stream = HeldStream(frame_data(0x1000, 0x100000, INNER) + b"".join(records))
    table = PdbFrames(stream, HeldStream(), lambda offset: NAMES[offset])
    assert table.find(0x1001).program == "whole"
    stream.reads.clear()
    assert table.find(0x90000).program == "inner"
    assert len(stream.reads) <= 2


RANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 60)), max_size=300)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(RANGES, st.booleans())
def test_any_overlap_gives_the_covering_record_that_starts_last(ranges, in_order):
    """Also if the records are not sorted, which no linker does, but a damaged PDB has."""
    ranges = sorted(ranges) if in_order else ranges
    table = frames(*(frame_data(start, size) for start, size in ranges))
    for rva in range(0, 470, 7):
        covering = [(-start, size) for start, size in ranges if start <= rva < start + size]
        record = table.find(rva)
        expected = min(covering, default=None)
        if len(covering) <= 64:
            assert (record and (-record.rva, record.size)) == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.binary(max_size=100), st.binary(max_size=40), st.integers(0, 1 << 32))
def test_random_streams_raise_nothing(first, second, moved, rva):
    table = PdbFrames(HeldStream(first), HeldStream(second), str, Omap(HeldStream(moved)))
    for record in (table.find(rva), table.described(rva)):
        assert record is None or record.rva <= rva < record.rva + record.size


PROGRAM_TEXT = """
#define NI __declspec(noinline)
extern "C" int _fltused = 0;
void leaf(volatile int *where);
NI void leaf(volatile int *where) { *where += 1; }
NI int saves(int a, int b) { volatile int x = a; leaf(&x); leaf(&x); return x * b + a; }
NI int aligned(int a) { alignas(32) volatile int x[16] = {a}; leaf(x); return x[3]; }
NI int __stdcall pops(int a, int b, int c) { volatile int x = a; leaf(&x); return x + b * c; }
extern "C" int start() { return saves(1, 2) + aligned(3) + pops(4, 5, 6); }
"""


@pytest.mark.parametrize("options", [("-O0",), ("-O2", "-fomit-frame-pointer"), ("-O2", "-fno-omit-frame-pointer")])
def test_the_records_of_compiled_code_are_those_that_llvm_prints(tmp_path, options):
    """Clang writes a record for each step of a prologue, and programs with `@` for aligned frames."""
    path = compiled_pdb(
        tmp_path, PROGRAM_TEXT, "i686-pc-windows-msvc", *options, "-g", "-gcodeview", link=("/safeseh:no",)
    )
    printed = pdbutil(tmp_path, path, "-fpo").partition("Program")[2]
    rows = [row.split(" | ") for row in re.findall(r"[0-9A-F]{8} \|.*?(?=[0-9A-F]{8} \||$)", printed)]
    assert len(rows) > 4
    assert any(" @ " in row[-1] for row in rows)
    with MsfFile(path) as msf:
        dbi, info = Dbi(msf), read_info(msf)
        names = StringTable(msf.stream(info.named_streams["/names"]))
        table = PdbFrames(dbi.debug_stream(DebugStream.FRAME_DATA), dbi.debug_stream(DebugStream.FPO), names.at)
        for rva, size, local, parameters, _stack, prologue, saved, seh, eh, is_start, program in rows:
            record = table.find(int(rva, 16))
            sizes = (record.size, record.locals_size, record.parameters_size, record.prologue_size)
            assert (*sizes, record.saved_registers_size) == tuple(map(int, (size, local, parameters, prologue, saved)))
            flags = (record.has_seh, record.has_eh, record.is_function_start)
            assert flags == tuple(word == "true" for word in (seh, eh, is_start))
            assert record.program.split() == program.split()
