# SPDX-License-Identifier: Apache-2.0
"""The PDBs of the reference case: read by LLVM's tool, and held against the transcript's words on the stack."""

from __future__ import annotations

import struct

import pytest

from tests.forge.cases import Case, builders
from tests.forge.chains_x86 import Chain
from tests.forge.functions_x86 import Call, Function, aligned_frame, ebp_frame
from tests.forge.images import ImageBuilder, pdb_of
from tests.forge.pdbs import Source, add_frame_data, private_pdb
from tests.forge.stacks import Stack
from tests.support.llvm_pdbutil import pdbutil
from tests.support.pdb_model import Register, Variable
from tests.support.reference_transcript import THREAD, THROWING
from throwstack.core.memory import memory_of
from throwstack.pdb.pdb_file import PdbFile
from throwstack.pdb.pdb_table import PdbTable
from throwstack.unwind.x86.frame_data import run_program

PDB = "ftpsrvdata_pg.pdb"


@pytest.fixture(scope="module")
def case() -> Case:
    return builders()["ftp-2003"][0]()


def rows() -> dict[str, list[int]]:
    """Return ChildEBP, RetAddr and the three words of `Args to Child` in the transcript, by module!function.

    The module is in lower case, as in the names of the PDBs.
    """
    found = {}
    for line in (THREAD + THROWING).splitlines():
        *words, name = line.split()
        module, _, function = name.partition("+")[0].partition("!")
        found[f"{module.lower()}!{function}"] = [int(word, 16) for word in words]
    return found


def stack_word(case: Case, address: int) -> int:
    (process,) = (process for process in case.machine.processes if process.name == "iftpsvc.exe")
    for region in process.regions:
        if region.base <= address < region.base + len(region.data):
            return struct.unpack_from("<I", region.data, address - region.base)[0]
    raise KeyError(address)


def test_parameters_are_where_the_transcript_shows_their_values(case):
    """The first word after the return address is at ChildEBP + 8, whether ebp points there or not."""
    seen = {}
    for name, pdb in case.pdbs.items():
        for function in pdb.procedures:
            row = rows().get(f"{name.removesuffix('.pdb')}!{function.name}")
            if row is None:
                continue
            child_ebp, _, *words = row
            frame = child_ebp if function.has_fp else child_ebp + 4  # what $T0 of the frame data is there
            for item in function.items:
                if isinstance(item, Variable) and item.offset > 0:
                    value = stack_word(case, frame + item.offset)
                    assert value == words[(item.offset - (8 if function.has_fp else 4)) // 4], (function.name, item)
                    seen[f"{function.name}: {item.name}"] = value
    assert seen == {
        "_com_raise_error: hr": 0x80004003,
        "_com_raise_error: perrinfo": 0,
        "_com_issue_error: hr": 0x80004003,
        "PrintProviderError: pConnection": 0,
        "IDBCommand::ExecuteResults: query": 0x045BF9F0,
        "IFTPSystemStats_Impl::UpdateSystemStats: server": 1,
        "IFTPSystemStats_Impl::UpdateSystemStats: stats": 0x045BFE74,
        "IFTPSystemStats_Impl::UpdateSystemStats: count": 0x15,
        "SessionManagerThreadProc: context": 0x006AB558,
        "__crtExitProcess: status": 3,
        "doexit: code": 3,
        "doexit: quick": 1,
        "doexit: retcaller": 0,
        "_exit: code": 3,
        "raise: signum": 0x16,
    }


def test_locals_are_at_the_addresses_that_were_passed_on(case):
    (update,) = (item for item in case.pdbs[PDB].procedures if item.name.endswith("UpdateSystemStats"))
    (local,) = (item for item in update.items if isinstance(item, Variable) and item.offset < 0)
    row = rows()
    assert row["ftpsrvdata_pg!IFTPSystemStats_Impl::UpdateSystemStats"][0] + local.offset == 0x045BF9F0
    assert row["ftpsrvdata_pg!IDBCommand::ExecuteResults"][2] == 0x045BF9F0


def test_the_files_are_the_same_every_time(case):
    again = builders()["ftp-2003"][0]()
    assert {name: pdb.to_bytes() for name, pdb in case.pdbs.items()} == {
        name: pdb.to_bytes() for name, pdb in again.pdbs.items()
    }


def test_llvm_reads_signatures_and_variables(case, tmp_path):
    text = pdbutil(tmp_path, case.pdbs[PDB], "-symbols", "-types")
    assert "type = `0x1018 (void (HRESULT, IErrorInfo*))`" in text
    assert "`hr` type = 0x0008 (HRESULT), offset = 4" in text
    assert "calling conv = stdcall" in text
    assert "LF_MEMBER [name = `m_pInterface`, Type = 0x1009, offset = 0" in text
    assert "type = `0x100D (void (ADODB::_ConnectionPtr))`, debug start = 0, debug end = 64, flags = none" in text


def test_llvm_reads_every_part_of_every_file(case, tmp_path):
    for name, pdb in case.pdbs.items():
        text = pdbutil(tmp_path, pdb, "-all")
        assert "our hash" not in text, name
        assert "Section Contributions" in text


def aligned_call() -> tuple[Stack, Chain, ImageBuilder, list[Function]]:
    """Lay out `outer`, which calls `rounded` (it rounds its stack pointer down to 16 bytes), which calls `leaf`."""
    image = ImageBuilder("app.exe", 0x400000, 0x1000, pdb=pdb_of("app.exe"))
    outer = Function("outer", 0x401000, ebp_frame(0x10), (Call(0x401030, 0x401100, (0x1234,)),))
    rounded = Function("rounded", 0x401100, aligned_frame(0x20, 4), (Call(0x401130, 0x401200, (7,)),))
    leaf = Function("leaf", 0x401200, ebp_frame())
    functions = [outer, rounded, leaf]
    for function in functions:
        image.code(function.start, function.emit())
        image.name_function(function.name, function.start)
    stack = Stack(0x12E000, 0x130000)
    chain = Chain(stack, 0x12FFF4)
    chain.enter(outer).enter(rounded).enter(leaf, ip=0x401203)
    return stack, chain, image, functions


def test_a_frame_that_is_aligned_has_its_locals_below_the_rounded_address(tmp_path):
    """Visual C++ writes `@` into the program: `$T0` is (return slot - 4) rounded down, where locals count from."""
    stack, chain, image, functions = aligned_call()
    source = Source("app.cpp", 9, (("int", "count"),), locals=(Variable("sum", "__int64", -0x20),))
    pdb = private_pdb(image, functions, {"rounded": source})
    add_frame_data(pdb, image, functions)
    (tmp_path / "app.pdb").write_bytes(pdb.to_bytes())
    outer, rounded, _ = chain.placed
    assert rounded.registers["ebp"] % 16 == 4
    table = PdbTable(PdbFile(tmp_path / "app.pdb"), pytest.fail)
    record = table.frame_data(0x1130)
    variables = {f"${name}": value for name, value in rounded.registers.items()}
    found = run_program(
        record.program,
        {**variables, ".raSearch": rounded.registers["ebp"] + 4},
        memory_of({stack.limit: stack.data()}),
    )
    assert found["$eip"] == rounded.return_address == 0x401030
    assert found["$ebp"] == outer.registers["ebp"]
    assert found["$esp"] == rounded.return_slot + 4
    assert found["$T0"] == (rounded.return_slot - 4) & ~15
    assert found["$T0"] - 0x20 == rounded.registers["esp"] + 4  # the argument of the call is below the locals
    parameter, local = pdb.procedures[1].items[1:]
    assert stack.word(rounded.registers["ebp"] + parameter.offset) == 0x1234
    assert (parameter.register, local.register) == (Register.EBP, None)
