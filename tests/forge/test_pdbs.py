# SPDX-License-Identifier: Apache-2.0
"""The PDBs of the reference case: read by LLVM's tool, and held against the transcript's words on the stack."""

from __future__ import annotations

import struct

import pytest

from tests.forge.cases import Case, builders
from tests.support.llvm_pdbutil import pdbutil
from tests.support.pdb_model import Variable
from tests.support.reference_transcript import THREAD, THROWING

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
