# SPDX-License-Identifier: Apache-2.0
"""PDBs of the tests' writer, read by LLVM's own tool."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support.pdb_writer import FpoRecord, FrameRecord, Inline, Pdb, Procedure, Public

GUID = "0123456789ABCDEF00112233445566AA"
TOOL = shutil.which("llvm-pdbutil-19") or shutil.which("llvm-pdbutil")


def dump(tmp_path, pdb: Pdb, option: str, block_size: int = 4096) -> str:
    if TOOL is None:
        pytest.skip("llvm-pdbutil is not installed")
    file = tmp_path / "written.pdb"
    file.write_bytes(pdb.to_bytes(block_size))
    result = subprocess.run([TOOL, "dump", option, file], capture_output=True, text=True, check=True, timeout=60)
    return " ".join(result.stdout.split())


@pytest.mark.parametrize("block_size", [512, 4096])
def test_llvm_reads_the_identity_that_was_written(tmp_path, block_size):
    text = dump(tmp_path, Pdb(GUID, age=3, info_age=7), "-summary", block_size)
    assert "GUID: {01234567-89AB-CDEF-0011-2233445566AA}" in text
    assert "Age: 7" in text


def test_llvm_reads_a_procedure_and_its_lines(tmp_path):
    pdb = Pdb(
        GUID, procedures=[Procedure("A::f", 0x1100, 0x40, [(0, r"d:\a.cpp", 855), (0x30, r"d:\a.cpp", 860)], ("X",))]
    )
    text = dump(tmp_path, pdb, "-symbols")
    assert "S_GPROC32 [size = 44] `A::f`" in text
    assert "addr = 0001:0256, code size = 64" in text
    assert "(void (X))" in text
    assert "855 00000100 860 00000130" in dump(tmp_path, pdb, "-l")


def test_llvm_reads_nested_inlined_functions(tmp_path):
    inner = Inline("inner", r"d:\c.h", 200, [(0x28, 4, 201)])
    outer = Inline("outer", r"d:\b.h", 100, [(0x20, 8, 101), (0x28, 8, 99)], [inner])
    text = dump(tmp_path, Pdb(GUID, procedures=[Procedure("f", 0x1200, 0x60, [], (), [outer])]), "-symbols")
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
    text = dump(tmp_path, pdb, "-fpo")
    assert f"00001100 | 64 | 12 | 4 | 32 | 5 | 8 | false | false | true | {program}" in text
    assert "00002000 | 16 | 3 | 2 | 1 | 0 | false | false | FPO" in text


def test_llvm_reads_public_symbols(tmp_path):
    text = dump(tmp_path, Pdb(GUID, publics=[Public("_foo@8", 0x1010)]), "-gsi-records")
    assert "S_PUB32 [size = 24] `_foo@8` flags = function, addr = 0001:0016" in text
