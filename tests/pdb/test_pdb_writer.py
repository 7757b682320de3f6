# SPDX-License-Identifier: Apache-2.0
"""PDBs of the tests' writer, read by LLVM's own tool."""

from __future__ import annotations

import re

import pytest

from tests.support.llvm_pdbutil import pdbutil
from tests.support.pdb_model import (
    X64,
    Block,
    Convention,
    Enumeration,
    FrameInfo,
    Local,
    Member,
    Place,
    Register,
    Structure,
    Tag,
    Thunk,
    Variable,
)
from tests.support.pdb_writer import FpoRecord, FrameRecord, Inline, Pdb, Procedure, Public

GUID = "0123456789ABCDEF00112233445566AA"


@pytest.mark.parametrize("block_size", [512, 4096])
def test_llvm_reads_the_identity_that_was_written(tmp_path, block_size):
    text = pdbutil(tmp_path, Pdb(GUID, age=3, info_age=7), "-summary", block_size=block_size)
    assert "GUID: {01234567-89AB-CDEF-0011-2233445566AA}" in text
    assert "Age: 7" in text


def test_llvm_reads_a_procedure_and_its_lines(tmp_path):
    pdb = Pdb(
        GUID, procedures=[Procedure("A::f", 0x1100, 0x40, [(0, r"d:\a.cpp", 855), (0x30, r"d:\a.cpp", 860)], ("X",))]
    )
    text = pdbutil(tmp_path, pdb, "-symbols")
    assert "S_GPROC32 [size = 44] `A::f`" in text
    assert "addr = 0001:0256, code size = 64" in text
    assert "(void (X))" in text
    assert "855 00000100 860 00000130" in pdbutil(tmp_path, pdb, "-l")


def test_llvm_reads_nested_inlined_functions(tmp_path):
    inner = Inline("inner", r"d:\c.h", 200, [(0x28, 4, 201)])
    outer = Inline("outer", r"d:\b.h", 100, [(0x20, 8, 101), (0x28, 8, 99)], [inner])
    text = pdbutil(tmp_path, Pdb(GUID, procedures=[Procedure("f", 0x1200, 0x60, [], (), [outer])]), "-symbols")
    assert "(outer), parent = 44, end = 144" in text
    assert "code 0x20 (+0x20)" in text
    assert "line -1 (-2)" in text
    assert "(inner), parent = 88, end = 140" in text
    assert "140 | S_INLINESITE_END [size = 4] 144 | S_INLINESITE_END [size = 4]" in text


def test_llvm_reads_frame_data_and_fpo_records(tmp_path):
    program = "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + ="
    pdb = Pdb(
        GUID,
        frame_data=[FrameRecord(0x1100, 0x40, program, 12, 4, 8, 5, 0x20)],
        fpo=[FpoRecord(0x2000, 16, 3, 2, 1)],
    )
    text = pdbutil(tmp_path, pdb, "-fpo")
    assert f"00001100 | 64 | 12 | 4 | 32 | 5 | 8 | false | false | true | {program}" in text
    assert "00002000 | 16 | 3 | 2 | 1 | 0 | false | false | FPO" in text


def test_llvm_reads_public_symbols(tmp_path):
    text = pdbutil(tmp_path, Pdb(GUID, publics=[Public("_foo@8", 0x1010)]), "-gsi-records")
    assert "S_PUB32 [size = 24] `_foo@8` flags = function, addr = 0001:0016" in text


def test_llvm_reads_a_structure_with_bases_bit_fields_and_arrays(tmp_path):
    shape = Structure(
        24,
        (Member("kind", "Kind", 4), Member("flags", "unsigned", 8, (3, 2)), Member("name", "char[12]", 12)),
        (("Base", 0),),
        Tag.CLASS,
    )
    types = {
        "Base": Structure(4, (Member("x", "float", 0),)),
        "Kind": Enumeration({"none": -1, "big": 70_000}),
        "A": shape,
    }
    text = pdbutil(tmp_path, Pdb(GUID, types=types), "-types", "-type-extras")
    assert "our hash" not in text
    assert "`A` unique name: `.?AVA@@`" in text
    assert "sizeof 24" in text
    assert "- LF_BCLASS type = 0x1001, offset = 0" in text
    assert "- LF_MEMBER [name = `kind`, Type = 0x1003, offset = 4" in text
    assert "type = 0x0075 (unsigned), bit offset = 2, # bits = 3" in text
    assert "size: 12, index type: 0x0075 (unsigned), element type: 0x0070 (char)" in text
    assert "- LF_ENUMERATE [none = -1] - LF_ENUMERATE [big = 70000]" in text


def test_llvm_finds_the_definition_of_a_declared_structure_by_its_hash(tmp_path):
    pdb = Pdb(
        GUID, procedures=[Procedure("f", 0x1000, 4, [], ("A*",))], types={"A": Structure(4, (Member("x", "int", 0),))}
    )
    assert "options: forward ref (-> 0x1005) | has unique name" in pdbutil(tmp_path, pdb, "-types")


def test_llvm_finds_types_in_the_index_that_the_hash_stream_has(tmp_path):
    """An entry every 8 KB."""
    types = {f"T{number}": Structure(4, (Member("x", "int", 0),)) for number in range(1000)}
    text = pdbutil(tmp_path, Pdb(GUID, types=types), "-types", "-type-index=0x1000", "-type-extras")
    offsets = [int(part.split()[0]) for part in text.partition("Type Index Offsets:")[2].split("Offset: ")[1:]]
    assert [offset // 8192 for offset in offsets] == list(range(len(offsets)))
    assert len(offsets) > 3


@pytest.mark.parametrize(
    ("spelled", "shown"),
    [
        ("const char*", "const char*"),
        ("char* const", "char* const"),
        ("const char* const", "const char* const"),
        ("A&", "A&"),
        ("unsigned __int64", "unsigned __int64"),
        ("int (__stdcall*)(int,void*)", "int (int, void*)*"),
        ("void**", "void**"),
    ],
)
def test_llvm_reads_types_as_they_were_spelled(tmp_path, spelled, shown):
    text = pdbutil(tmp_path, Pdb(GUID, procedures=[Procedure("f", 0x1000, 4, [], (spelled,))]), "-types", "-symbols")
    assert f"`{shown}`" in text or f"({shown})" in text


def test_llvm_reads_conventions_results_and_members(tmp_path):
    free = Procedure("f", 0x1000, 4, [], ("int",), returns="HRESULT", convention=Convention.STDCALL)
    member = Procedure("C::g", 0x1010, 4, [], (), convention=Convention.THISCALL, this="C")
    text = pdbutil(tmp_path, Pdb(GUID, procedures=[free, member]), "-types")
    assert "return type = 0x0008 (HRESULT), # args = 1, param list = 0x1000 calling conv = stdcall" in text
    assert "class type = 0x1003, this type = 0x1004, this adjust = 0 calling conv = thiscall" in text


def test_llvm_reads_variables_of_unoptimised_code(tmp_path):
    items = (
        FrameInfo(0x20, 8, 1, 2),
        Variable("hr", "HRESULT", 8),
        Variable("x", "int", 12, Register.EBP),
        Variable("i", "int", register=Register.ESI),
        Block(4, 8, (Variable("inner", "int", -8),)),
    )
    pdb = Pdb(GUID, procedures=[Procedure("f", 0x1000, 0x40, [], ("HRESULT", "int"), items=items, has_fp=True)])
    text = pdbutil(tmp_path, pdb, "-symbols")
    assert "flags = has fp" in text
    assert "size = 32, padding size = 0, offset to padding = 0 bytes of callee saved registers = 8" in text
    assert "local fp reg = VFRAME, param fp reg = EBP" in text
    assert "S_BPREL32 [size = 16] `hr` type = 0x0008 (HRESULT), offset = 8" in text
    assert "`x` type = 0x0074 (int), register = EBP, offset = 12" in text
    assert "`i` register = ESI, type = 0x0074 (int)" in text
    assert "code size = 8, addr = 0001:0004" in text


def test_llvm_reads_places_of_optimised_code(tmp_path):
    items = (
        FrameInfo(0x20, 0, 1, 1),
        Local("a", "int", (Place(0, 8, Register.RCX), Place(8, 0x20, offset=0x30, gaps=((2, 3),))), is_parameter=True),
        Local("gone", "int"),
        Local("b", "int", (Place(offset=0x24),)),
        Local("c", "__int64", (Place(4, 8, Register.RBP, 0x10), Place(8, 12, Register.RAX, part=4))),
    )
    pdb = Pdb(GUID, machine=X64, procedures=[Procedure("f", 0x1000, 0x40, [], ("int",), items=items)])
    text = pdbutil(tmp_path, pdb, "-symbols")
    assert "local fp reg = RSP, param fp reg = RSP" in text
    assert "`a` type=0x0074 (int), flags = param" in text
    assert "register = RCX, may have no name = false, range start = 0001:0000, length = 8 gaps = []" in text
    assert "offset = 48, range = [0001:0008,+24) gaps = [(2,3)]" in text
    assert "`gone` type=0x0074 (int), flags = optimized away" in text
    assert "S_DEFRANGE_FRAMEPOINTER_REL_FULL_SCOPE [size = 8] offset = 36" in text
    assert "register = RBP, offset = 16, offset in parent = 0, has spilled udt = false range = [0001:0004,+4)" in text
    assert "register = RAX, may have no name = true, offset in parent = 4 range = [0001:0008,+4)" in text


def test_llvm_reads_modules_with_thunks_and_separated_parts(tmp_path):
    pdb = Pdb(
        GUID,
        procedures=[
            Procedure("f", 0x1100, 0x40, parts=((0x2000, 0x10),), module="a.obj"),
            Procedure("g", 0x1140, 0x40, module="b.obj", is_local=True),
        ],
        thunks=[Thunk(0x3000, 5, 0x1100), Thunk(0x3010, 6, 0x1140, "imported")],
    )
    text = pdbutil(tmp_path, pdb, "-symbols", "-section-contribs")
    assert "mod = 0, 0001:0256, size = 64" in text
    assert "mod = 1, 0001:0320, size = 64" in text
    assert "mod = 0, 0001:4096, size = 16" in text
    assert "mod = 2, 0001:8192, size = 22" in text
    assert "S_LPROC32 [size = 44] `g`" in text
    assert "S_SEPCODE" in text
    assert "type = tramp incremental, size = 5" in text
    assert "`imported` parent = 0, end = 100, next = 0 kind = thunk, size = 6, addr = 0001:8208" in text


def test_llvm_finds_globals_by_name(tmp_path):
    names = [f"function_{number}" for number in range(50)]
    pdb = Pdb(
        GUID,
        procedures=[Procedure(name, 0x1000 + 16 * number, 16) for number, name in enumerate(names)],
        typedefs={"DWORD": "unsigned long"},
    )
    for name in (*names, "DWORD"):
        assert f"`{name}`" in pdbutil(tmp_path, pdb, "-globals", f"-global-name={name}")
    assert "no matching records found" in pdbutil(tmp_path, pdb, "-globals", "-global-name=absent")


def test_llvm_reads_publics_in_the_order_of_their_addresses(tmp_path):
    publics = [Public("_third", 0x1030), Public("_first", 0x1010), Public("_data", 0x1020, is_function=False)]
    text = pdbutil(tmp_path, Pdb(GUID, publics=publics), "-publics", "-public-extras")
    at = {name: int(number) for number, name in re.findall(r"(\d+) \| S_PUB32 \[size = \d+\] `(\w+)`", text)}
    order = [int(number) for number in re.findall(r"off = (\d+)", text.partition("Address Map")[2])]
    assert order == [at["_first"], at["_data"], at["_third"]]
    assert "`_data` flags = none, addr = 0001:0032" in text


def test_llvm_reads_what_kind_of_pdb_it_is(tmp_path):
    assert "Is stripped: true" in pdbutil(tmp_path, Pdb(GUID, is_stripped=True), "-summary")
    assert "Has IDs: false" in pdbutil(tmp_path, Pdb(GUID, stream_4=b"old"), "-summary")
