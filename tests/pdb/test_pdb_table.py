# SPDX-License-Identifier: Apache-2.0
"""The symbol table of an image from its PDB, also from a damaged one."""

from __future__ import annotations

import random

import pytest

from tests.support.app_pdb import APP, CPP
from tests.support.open_pdb import GUID, opened
from tests.support.pdb_model import Inline, Local, Place, Register
from tests.support.pdb_writer import Pdb, Procedure, Public
from throwstack.pdb.msf import NotAPdb
from throwstack.pdb.pdb_file import PdbFile
from throwstack.pdb.pdb_table import PdbTable


def test_folded_functions_have_readable_names(tmp_path):
    publics = [Public("?total@Cart@@QAEHH@Z", 0x1000), Public("?total@Order@@QAEHH@Z", 0x1000)]
    procedures = [Procedure("Cart::total", 0x1000, 0x20, [(0, CPP, 5)])]
    table = PdbTable(opened(tmp_path, Pdb(GUID, publics=publics, procedures=procedures)), pytest.fail)
    (found,) = table.locate(0x1008)
    assert (found.symbol, found.facts.others()) == ("Cart::total", ("Order::total",))
    assert [table.rva_of(name) for name in ("Cart::total", "Order::total")] == [0x1000, 0x1000]


def test_a_function_that_was_not_folded_has_no_other_names(tmp_path):
    publics = [Public("?total@Cart@@QAEHH@Z", 0x1000)]
    procedures = [Procedure("Cart::total", 0x1000, 0x20)]
    table = PdbTable(opened(tmp_path, Pdb(GUID, publics=publics, procedures=procedures)), pytest.fail)
    assert table.locate(0x1008)[0].facts.others() == ()


def test_a_pdb_without_functions_is_empty(tmp_path):
    assert len(PdbTable(opened(tmp_path, Pdb(GUID)), pytest.fail)) == 0
    assert len(PdbTable(opened(tmp_path, APP), pytest.fail)) > 0


@pytest.mark.parametrize("seed", range(8))
def test_damage_is_said_once_and_costs_names_alone(tmp_path, seed):
    """Whole blocks are overwritten. What is said is one line that begins with the path."""
    chance = random.Random(seed)
    data = APP.to_bytes(512)
    heads = {0, 1, 2, 3}
    for _ in range(20):
        path = tmp_path / "app.pdb"
        damaged = bytearray(data)
        for _ in range(3):
            block = chance.randrange(len(data) // 512)
            if block not in heads:
                damaged[block * 512 : block * 512 + 512] = chance.choice(
                    (b"\xff" * 512, bytes(512), chance.randbytes(512))
                )
        path.write_bytes(damaged)
        said: list[str] = []
        try:
            table = PdbTable(PdbFile(path), said.append)
        except NotAPdb as error:
            said.append(str(error))
        else:
            for rva in range(0x1000, 0x2040, 8):
                table.locate(rva)
                table.nearest(rva)
                table.frame_data(rva)
            for name in ("PrintProviderError", "foo", "A::f"):
                table.rvas_of(name)
            table.pdb.close()
        assert len(said) <= 1
        assert all(line.startswith(f"{path}: ") and "\n" not in line for line in said)


def test_the_signature_of_an_inlined_function_has_the_names_of_its_parameters(tmp_path):
    """The variables of an inlined function are with its site, of which there may be several."""
    count = Local("count", "int", (Place(0, 0x40, Register.ESI),), is_parameter=True)
    size = Local("size", "int", (Place(0, 0x40, Register.ESI),), is_parameter=True)
    sites = [
        Inline("grow", "a.h", 5, [(8, 8, 5)], items=(count,), parameters=("int",)),
        Inline("shrink", "a.h", 9, [(16, 8, 9)], items=(size,), parameters=("int",)),
    ]
    pdb = Pdb(GUID, procedures=[Procedure("f", 0x1000, 0x40, [(0, "a.c", 1)], ("int",), sites)])
    table = PdbTable(opened(tmp_path, pdb), lambda _: None)
    signatures = [[one.facts.signature() for one in table.locate(rva)] for rva in (0x1008, 0x1010)]
    assert signatures == [
        ["void __cdecl grow(int count)", "void __cdecl f(int)"],
        ["void __cdecl shrink(int size)", "void __cdecl f(int)"],
    ]
