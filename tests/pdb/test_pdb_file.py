# SPDX-License-Identifier: Apache-2.0
"""One PDB, asked for functions by address and by name."""

from __future__ import annotations

import pytest

from tests.support.open_pdb import GUID, opened
from tests.support.pdb_model import Thunk
from tests.support.pdb_writer import X64, Inline, Pdb, Procedure, Public
from throwstack.pdb.kept import Kept
from throwstack.pdb.msf import NotAPdb
from throwstack.pdb.pdb_file import PdbFile, PdbKind

CPP, HEADER = r"d:\src\a.cpp", r"d:\src\list.h"


def names(pdb: PdbFile, rva: int) -> list[str]:
    return [found.name for found in pdb.functions_at(rva)]


def test_functions_lines_and_what_was_inlined(tmp_path):
    inner = Inline("List::grow", HEADER, 20, [(0x28, 4, 22)])
    outer = Inline("List::push", HEADER, 90, [(0x20, 0x10, 91)], [inner])
    pdb = opened(tmp_path, Pdb(GUID, procedures=[Procedure("f", 0x1200, 0x60, [(0, CPP, 600)], (), [outer])]))
    assert [(found.name, found.rva, found.file, found.line) for found in pdb.functions_at(0x1229)] == [
        ("List::grow", None, HEADER, 22),
        ("List::push", None, HEADER, 91),
        ("f", 0x1200, CPP, 600),
    ]


def test_inlined_functions_of_a_function_without_lines(tmp_path):
    """An implicit destructor has no line of its own, and the ones inlined into it have."""
    inlined = Inline("B::~B", HEADER, 5, [(4, 8, 6)])
    pdb = opened(tmp_path, Pdb(GUID, procedures=[Procedure("A::~A", 0x1000, 0x20, [], (), [inlined])]))
    assert [(found.name, found.line) for found in pdb.functions_at(0x1004)] == [("B::~B", 6), ("A::~A", 0)]


def test_a_part_bears_the_name_of_its_function(tmp_path):
    """`parse` has its seldom run code after `print`. Offsets count from the start of `parse`."""
    procedures = [
        Procedure("parse", 0x1000, 0x40, [(0, CPP, 5)], parts=((0x1100, 0x20), (0x0FC0, 0x10))),
        Procedure("print", 0x1040, 0x40),
    ]
    pdb = opened(tmp_path, Pdb(GUID, sections=[(".text", 0xF00, 0x1000)], procedures=procedures))
    (found,) = pdb.functions_at(0x1108)
    assert (found.name, found.rva, found.is_inside) == ("parse", 0x1000, True)
    assert pdb.functions_at(0xFC8)[-1].rva == 0x1000
    assert pdb.nearest(0x1108) is None
    assert pdb.nearest(0x1044).name == "print"


def test_every_name_of_folded_functions(tmp_path):
    """The linker made one of `twin_a` and `twin_b`. The record is that of one, the public symbols are of both."""
    publics = [Public("twin_a", 0x1000), Public("twin_b", 0x1000), Public("other", 0x1020)]
    pdb = opened(tmp_path, Pdb(GUID, machine=X64, publics=publics, procedures=[Procedure("twin_a", 0x1000, 0x20)]))
    (found,) = pdb.functions_at(0x1008)
    assert {found.name, *pdb.folded_with(found)} == {"twin_a", "twin_b"}
    assert [pdb.rvas_of(name) for name in ("twin_a", "twin_b")] == [[0x1000], [0x1000]]
    (other,) = pdb.functions_at(0x1024)
    assert set(pdb.folded_with(other)) <= {"other"}


def test_folded_static_functions(tmp_path):
    procedures = [Procedure(name, 0x1000, 0x20, is_local=True) for name in ("first", "second")]
    pdb = opened(tmp_path, Pdb(GUID, procedures=procedures))
    (found,) = pdb.functions_at(0x1008)
    assert (found.name, pdb.folded_with(found)) == ("first", ("second",))


def test_a_name_finds_all_functions_of_that_name(tmp_path):
    """Each object file may have a static function `init` of its own."""
    procedures = [
        Procedure("init", rva, 0x10, is_local=True, module=f"{letter}.obj")
        for rva, letter in ((0x1000, "a"), (0x1100, "b"))
    ]
    pdb = opened(tmp_path, Pdb(GUID, procedures=procedures))
    assert pdb.rvas_of("init") == [0x1000, 0x1100]
    assert pdb.rvas_of("ini") == []


def test_functions_of_public_symbols_by_name(tmp_path):
    publics = [Public("_Sleep@4", 0x1000), Public("?f@A@@QAEXH@Z", 0x1010), Public("?f@A@@QAEXXZ", 0x1020)]
    pdb = opened(tmp_path, Pdb(GUID, publics=publics))
    assert [pdb.rvas_of(name) for name in ("Sleep", "A::f", "B::f")] == [[0x1000], [0x1010, 0x1020], []]


def test_jumps_of_incremental_linking(tmp_path):
    pdb = opened(
        tmp_path,
        Pdb(
            GUID,
            procedures=[Procedure("main", 0x1100, 0x20, module="a.obj"), Procedure("f", 0x1200, 0x20, module="b.obj")],
            publics=[Public("_main", 0x1100)],
            thunks=[Thunk(0x1005, 5, 0x1200), Thunk(0x100A, 5, 0x1100), Thunk(0x1010, 6, 0, "__load_it")],
        ),
    )
    assert names(pdb, 0x1007) == ["ILT+0(f)"]
    assert names(pdb, 0x100A) == ["ILT+5(_main)"]
    assert names(pdb, 0x1012) == ["__load_it"]


def test_a_public_symbol_names_the_code_of_its_own_contribution(tmp_path):
    """After the end of the object file's code comes that of another one, which has no symbols."""
    procedures = [Procedure("f", 0x1000, 0x20, module="a.obj"), Procedure("g", 0x1080, 0x20, module="b.obj")]
    pdb = opened(tmp_path, Pdb(GUID, procedures=procedures, publics=[Public("_asm", 0x1040), Public("_asm2", 0x10C0)]))
    (found,) = pdb.functions_at(0x1044)
    assert (found.name, found.is_inside) == ("_asm", None)
    (found,) = pdb.functions_at(0x1030)
    assert (found.name, found.is_inside) == ("f", False)


def test_how_much_a_pdb_has(tmp_path):
    with_lines = Procedure("f", 0x1000, 0x20, [(0, CPP, 5)])
    pdbs = [Pdb(GUID, procedures=[with_lines]), Pdb(GUID, procedures=[with_lines], is_stripped=True)]
    pdbs += [Pdb(GUID, publics=[Public("_f", 0x1000)], **flags) for flags in ({}, {"is_fastlink": True})]
    kinds = [opened(tmp_path, pdb).kind for pdb in pdbs]
    assert kinds == [PdbKind.PRIVATE, PdbKind.PUBLIC, PdbKind.PUBLIC, PdbKind.FASTLINK]
    assert "object files" in PdbKind.FASTLINK.value


def test_a_debug_pdb_of_visual_cpp_2008(tmp_path):
    """It has no ids, and another stream where they are today. Symbolic refuses such a PDB."""
    procedures = [Procedure("A::f", 0x1000, 0x20, [(0, CPP, 5)], ("int",))]
    pdb = opened(tmp_path, Pdb(GUID, procedures=procedures, stream_4=b"\xff" * 64))
    assert [(found.name, found.line) for found in pdb.functions_at(0x1004)] == [("A::f", 5)]
    assert pdb.ids is None


@pytest.mark.parametrize("block_size", [512, 4096])
def test_only_the_module_of_an_address_is_read(tmp_path, block_size):
    procedures = [
        Procedure(f"f{index}", 0x1000 + 0x20 * index, 0x20, [(0, CPP, index + 1)], module=f"{index // 50}.obj")
        for index in range(5000)
    ]
    pdb = opened(tmp_path, Pdb(GUID, procedures=procedures), block_size)
    read = []
    whole = pdb.msf.read_blocks
    pdb.msf.read_blocks = lambda number, count: read.append(count) or whole(number, count)
    assert names(pdb, 0x1000 + 0x20 * 2345) == ["f2345"]
    assert sum(read) * block_size < pdb.msf.size / 10


def test_what_is_kept_has_a_limit(tmp_path):
    procedures = [
        Procedure(f"f{index}", 0x1000 + 0x20 * index, 0x20, [(0, CPP, index + 1)], module=f"{index // 50}.obj")
        for index in range(1000)
    ]
    opened(tmp_path, Pdb(GUID, procedures=procedures)).close()
    kept = Kept(limit=8000)
    pdb = PdbFile(tmp_path / "app.pdb", kept)
    for _ in range(2):
        for index in range(0, 1000, 10):
            assert [(found.name, found.line) for found in pdb.functions_at(0x1004 + 0x20 * index)] == [
                (f"f{index}", index + 1)
            ]
            assert kept.size <= 8000
    pdb.close()
    assert kept.size == 0


def test_a_closed_pdb_can_be_replaced(tmp_path):
    pdb = opened(tmp_path, Pdb(GUID, publics=[Public("_f", 0x1000)]))
    pdb.close()
    assert [
        found.name for found in opened(tmp_path, Pdb(GUID, publics=[Public("_g", 0x1000)])).functions_at(0x1000)
    ] == ["_g"]


def test_an_error_names_the_file(tmp_path):
    path = tmp_path / "app.pdb"
    path.write_bytes(b"MZ" * 1000)
    with pytest.raises(NotAPdb, match=r"app\.pdb: not a PDB"):
        PdbFile(path)
