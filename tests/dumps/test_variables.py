# SPDX-License-Identifier: Apache-2.0
"""Parameters and local variables of the reference crash, through the plugins and the library.

What a person wants to see first are `hr = 0x80004003 E_POINTER`, the error that was raised, and `pConnection = 0`, the
smart pointer without an object that raised it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import throwstack
from tests.conftest import Forge
from tests.support.reference_pdbs import stack
from tests.support.vol import vol

RAISE_ERROR, PRINT_ERROR, UPDATE_STATS = 2, 4, 6


@pytest.fixture(scope="module")
def case(forged: Forge) -> Path:
    return forged("ftp-2003")[0]


def below(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return call site and notes of the rows below a frame's."""
    return [(child["Call Site"], child["Notes"]) for child in row["__children"]]


def test_cxrstack_shows_the_variables_below_their_frames(case: Path):
    rows = stack(case, "--locals", "--symbol-path", str(case / "pdb")).rows
    assert below(rows[RAISE_ERROR]) == [
        ("HRESULT hr = 0x80004003 E_POINTER", "parameter, [frame+0x4]"),
        ("IErrorInfo * perrinfo = 0", "parameter, [frame+0x8]"),
    ]
    assert below(rows[PRINT_ERROR]) == [("ADODB::_ConnectionPtr pConnection = 0", "parameter, [frame+0x4]")]
    assert ("int count = 21 (0x15)", "parameter, [ebp+0x10]") in below(rows[UPDATE_STATS])
    child = rows[RAISE_ERROR]["__children"][0]
    assert (child["Frame"], child["TID"], child["IP"], child["Trust"]) == (RAISE_ERROR, 2792, None, None)


def test_without_the_option_there_are_none(case: Path):
    assert not any(row["__children"] for row in stack(case, "--symbol-path", str(case / "pdb")).rows)


@pytest.mark.parametrize("plugin", [("windows.cxrstack",), ("windows.stackwalk", "--tid", "2792", "--brief")])
def test_without_a_pdb_the_wanted_one_is_named(case: Path, plugin: tuple[str, ...]):
    said = vol(case, *plugin, "--locals").err
    (line,) = (one for one in said.splitlines() if "--locals" in one)
    assert "no PDB with types" in line
    assert re.search(r"ftpsrvdata_pg\.pdb,[0-9A-F]{32}[0-9a-f]+,1 for ftpsrvdata_pg", line)
    assert "ntdll" not in line


def test_with_the_pdb_none_is_wanted_for_its_module(case: Path):
    result = vol(case, "windows.cxrstack", "--locals", "--symbol-path", str(case / "pdb"))
    assert "for ftpsrvdata_pg" not in result.err


def test_stackwalk_shows_them_too(case: Path):
    options = ("--tid", "2792", "--brief", "--locals", "--symbol-path", str(case / "pdb"))
    (thread,) = vol(case, "windows.stackwalk", *options).rows
    (frame,) = (one for one in thread["__children"] if "_com_raise_error" in one["Call Site"])
    assert below(frame)[0] == ("HRESULT hr = 0x80004003 E_POINTER", "parameter, [frame+0x4]")


def test_the_report_has_signatures_and_values(case: Path):
    with throwstack.open(case / "MEMORY.DMP", symbols=[case / "isf"], symbol_path=str(case / "pdb")) as dump:
        (crash,) = dump.crashes(tids=[2792])
    assert crash.throwing is not None
    raised, printed = crash.throwing.frames[RAISE_ERROR], crash.throwing.frames[PRINT_ERROR]
    assert raised.signature == "void __stdcall _com_raise_error(HRESULT hr, IErrorInfo * perrinfo)"
    assert printed.signature == "void __cdecl PrintProviderError(ADODB::_ConnectionPtr pConnection)"
    assert raised.name == "ftpsrvdata_pg!_com_raise_error+0x32"
    said = json.loads(json.dumps(throwstack.to_json(raised)))
    assert said["parameters"][0] == {
        "name": "hr",
        "type": "HRESULT",
        "value": "0x80004003",
        "text": "0x80004003 E_POINTER",
        "source": "[frame+0x4]",
    }
