# SPDX-License-Identifier: Apache-2.0
"""Names, lines, inlined functions and frame data from PDBs that the tests write themselves."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.support.app_pdb import APP, CPP, GUID, HEADER, PROGRAM, Place, image
from tests.support.pdb_writer import X64, FpoRecord, FrameRecord, Pdb, Procedure, Public
from throwstack.files.symbol_path import SymbolPath, parse_symbol_path
from throwstack.images.image import PdbIdentity
from throwstack.names.frame_records import FrameData, annotation
from throwstack.names.located_function import LocatedFunction
from throwstack.names.symbols import SymbolKind
from throwstack.pdb.pdb_symbols import PdbSymbols


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    there = Place(tmp_path_factory.mktemp("app"))
    there.put(APP)
    return there.table()


def test_an_address_has_a_function_a_file_and_a_line(app):
    assert app.locate(0x1135) == (
        LocatedFunction(
            "PrintProviderError",
            0x1100,
            rf"{CPP} @ 860",
            raw="PrintProviderError",
            is_inside=True,
        ),
    )
    assert app.locate(0x1135)[0].facts.signature() == "void __cdecl PrintProviderError(ADODB::_ConnectionPtr)"
    assert app.locate(0x112F)[0].source == rf"{CPP} @ 855"


def test_working_directory_of_a_compiler_on_another_system(place):
    """Clang on Linux, with `#line 860 "d:\\src\\a.cpp"`, puts its working directory in front of the path."""
    lines = [(0, r"/home/me/d:\src\a.cpp", 860)]
    place.put(Pdb(GUID, 3, procedures=[Procedure("f", 0x1000, 16, lines)]))
    assert place.table().locate(0x1000)[0].source == r"d:\src\a.cpp @ 860"


def test_inlined_functions_come_innermost_first(app):
    assert [(at.symbol, at.rva, at.source) for at in app.locate(0x1229)] == [
        ("grow", None, rf"{HEADER} @ 22"),
        ("List::push", None, rf"{HEADER} @ 91"),
        ("IDBCommand::ExecuteResults", 0x1200, rf"{CPP} @ 610"),
    ]
    assert [at.symbol for at in app.locate(0x1230)] == ["IDBCommand::ExecuteResults"]


def test_public_symbols_are_undecorated(app):
    assert app.kind is SymbolKind.PDB
    assert [app.locate(rva)[0].symbol for rva in (0x2004, 0x2010, 0x2023, 0x2031)] == [
        "A::f",
        "foo",
        "fast",
        "_except_handler3",
    ]
    assert app.locate(0x2004)[0].raw == "?f@A@@QAEXH@Z"
    assert app.locate(0x2004)[0].is_inside is None


def test_between_functions_the_nearest_name_is_marked_as_outside(app):
    assert app.locate(0x1150) == (
        LocatedFunction("PrintProviderError", 0x1100, raw="PrintProviderError", is_inside=False),
    )
    assert app.locate(0x1000) == ()


def test_functions_by_name_and_start(app):
    assert app.rva_of("IDBCommand::ExecuteResults") == 0x1200
    assert app.rva_of("A::f") == 0x2000
    assert app.nearest(0x1145) == ("PrintProviderError", 0x1100)


def test_the_innermost_frame_data_record_of_an_address_is_found(place):
    place.put(APP)
    symbols = place.symbols()
    of = image(PdbIdentity("app.pdb", GUID, 3))
    assert symbols.frame_data(of, 0x1104) == FrameData(
        0x1100, 0x40, 5, 4, 8, 12, PROGRAM, uses_base_pointer=False, is_function_start=True
    )
    assert symbols.frame_data(of, 0x1105).program == f"{PROGRAM} inner"
    assert symbols.frame_data(of, 0x2005) == FrameData(0x2000, 16, 0x25, 8, 8, 12, "", uses_base_pointer=True)
    assert symbols.frame_data(of, 0x3000) is None
    assert symbols.frame_data(image(None), 0x1104) is None


def test_what_kv_shows_of_a_function(place):
    """FPO_DATA covers the whole function. It is preferred to FrameData, whose records cover parts of it."""
    place.put(
        Pdb(
            GUID,
            3,
            frame_data=[
                FrameRecord(0x1000, 0x20, PROGRAM, 8, 4, 12),
                FrameRecord(0x2000, 0x20, PROGRAM, 8, 4, 12, has_seh=True),
            ],
            fpo=[
                FpoRecord(0x1000, 0x20, 20, 4, 3, 4),
                FpoRecord(0x3000, 0x20, 0, 3, 0, 7, uses_base_pointer=True),
                FpoRecord(0x4000, 0x20, kind=3),
                FpoRecord(0x5000, 0x20, kind=3, has_seh=True),
            ],
        )
    )
    table = place.table()
    shown = {rva: table.frame_description(rva) for rva in (0x1010, 0x2010, 0x3010, 0x4010, 0x5010, 0x6010)}
    assert {rva: data and annotation(data) for rva, data in shown.items()} == {
        0x1010: "FPO: [4,20,4]",
        0x2010: "FPO: [SEH]",
        0x3010: "FPO: [Uses EBP] [3,0,7]",
        0x4010: "FPO: [Non-Fpo]",
        0x5010: "FPO: [SEH]",
        0x6010: None,
    }
    assert table.frame_data(0x1010).program == PROGRAM


# An image whose code was rearranged: the function at 2000 was moved to 5000, but its block at 2010 to 4010.
MOVED = [(0x2000, 0x5000), (0x2010, 0x4010), (0x2018, 0x5010), (0x2020, 0x6000), (0x2030, 0), (0x2040, 0x4020)]
MOVED += [(0x3000, 0x7000), (0x3010, 0x4110)]
SECTIONS = [(".text", 0x1000, 0x8000)]


@pytest.fixture(params=["Microsoft's", "Syzygy's"])
def rearranged(request, place):
    """If the PDB has the section headers from before, section 1 begins at another RVA now."""
    is_microsofts = request.param == "Microsoft's"
    place.put(
        Pdb(
            GUID,
            3,
            procedures=[
                Procedure("moved", 0x2000, 0x20, [(0, CPP, 1), (0x10, CPP, 2), (0x18, CPP, 3)], ("int",)),
                Procedure("after", 0x2020, 0x10, [(0, CPP, 9)]),
                Procedure("left_out", 0x2030, 0x10),
                Procedure("last", 0x2040, 0x10),
            ],
            publics=[Public("_public", 0x3000)],
            frame_data=[FrameRecord(0x2000, 0x20, PROGRAM, 12, 4, 8, prologue=0x12)],
            fpo=[FpoRecord(0x2000, 0x20, 1, prologue=0x12, has_seh=True)],
            omap=MOVED,
            sections=[(".new", 0x3000, 0x8000)] if is_microsofts else SECTIONS,
            former_sections=SECTIONS if is_microsofts else [],
        )
    )
    return place.table()


def test_names_and_lines_follow_code_that_was_moved(rearranged):
    """Microsoft's tools rearranged system DLLs by blocks. An offset counts as in the image before."""

    def shown(rva: int) -> list[tuple[str, int, str]]:
        return [(at.symbol, rva - at.rva, at.source) for at in rearranged.locate(rva)]

    assert shown(0x5000) == [("moved", 0, rf"{CPP} @ 1")]
    assert shown(0x4012) == [("moved", 0x12, rf"{CPP} @ 2")]
    assert shown(0x5011) == [("moved", 0x19, rf"{CPP} @ 3")]
    assert shown(0x6000) == [("after", 0, rf"{CPP} @ 9")]
    assert rearranged.locate(0x5000)[0].facts.signature() == "void __cdecl moved(int)"


def test_public_symbols_follow_code_that_was_moved(rearranged):
    """A public symbol says nothing about the end of its function. In a moved block its neighbours prove nothing."""
    found = [rearranged.locate(rva)[0] for rva in (0x7004, 0x4114)]
    assert [(at.symbol, at.is_inside) for at in found] == [("public", None), ("public", True)]
    assert 0x4114 - found[1].rva == 0x14


def test_starts_of_functions_that_were_moved(rearranged):
    assert [rearranged.rva_of(name) for name in ("moved", "after", "left_out", "last")] == [
        0x5000,
        0x6000,
        None,
        0x4020,
    ]
    assert rearranged.nearest(0x5004) == ("moved", 0x5000)
    assert rearranged.nearest(0x6004) == ("after", 0x6000)
    assert rearranged.nearest(0x4012) is None
    assert rearranged.nearest(0x5011) is None


def test_frame_data_follows_code_that_was_moved(rearranged):
    """A piece that begins within the prologue has the rest of the prologue."""

    def figures(data: FrameData | None) -> tuple[int, int, int] | None:
        return data and (data.rva, data.size, data.prologue_size)

    pieces = {0x5004: (0x5000, 0x10, 0x12), 0x4014: (0x4010, 8, 2), 0x5014: (0x5010, 8, 0), 0x6004: None}
    assert {rva: figures(rearranged.frame_data(rva)) for rva in pieces} == pieces
    assert {rva: figures(rearranged.frame_description(rva)) for rva in pieces} == pieces
    assert rearranged.frame_data(0x4014).program == PROGRAM
    assert rearranged.frame_data(0x4014).has_seh


def test_underscores_belong_to_names_of_x64(place):
    """Only x86 puts an underscore in front of C names. Those of ntdll, `_LdrpInitialize`, are names."""
    publics = [Public("_foo", 0x1000), Public("?f@@YAXXZ", 0x1010), Public("_RNvCs1234_7mycrate3foo", 0x1020)]
    place.put(Pdb(GUID, 3, machine=X64, publics=publics))
    table = place.table()
    assert [table.locate(rva)[0].symbol for rva in (0x1000, 0x1010, 0x1020)] == ["_foo", "f", "mycrate::foo"]
    assert [table.rva_of(name) for name in ("_foo", "foo")] == [0x1000, None]


def test_wrong_age_is_refused_by_name(place):
    path = place.put(APP)
    assert place.table(age=4) is None
    assert place.said == [f"{path}: refused: age 3, the image wants 4 (GUID {GUID})"]


def test_a_file_that_is_replaced_between_the_check_and_the_opening(place, monkeypatch):
    path = place.put(APP)
    monkeypatch.setattr("throwstack.pdb.pdb_symbols.check_pdb", lambda *_: None)
    assert place.table(age=4) is None
    assert place.said == [f"{path}: replaced by another file while it was opened"]


def test_fastlink_is_said_once(place):
    path = place.put(Pdb(GUID, 3, is_fastlink=True, publics=[Public("_main", 0x1000)]))
    symbols = place.symbols()
    for _ in range(2):
        assert symbols(image(PdbIdentity("app.pdb", GUID, 3))).locate(0x1004)[0].symbol == "main"
    (said,) = place.said
    assert said.startswith(f"{path}: public symbols only: lines are in the object files")


def test_closed_symbols_close_their_files(place):
    path = place.put(APP)
    symbols = place.symbols()
    table = symbols(image(PdbIdentity("app.pdb", GUID, 3)))
    symbols.close()
    path.unlink()
    assert table.locate(0x1135) == ()


def test_an_image_without_an_rsds_record_can_be_identified_otherwise(place):
    place.put(APP)
    assert place.symbols()(image(None)) is None
    told = place.symbols(identify=lambda _: PdbIdentity("app.pdb", GUID, 3))(image(None))
    assert told.rva_of("untyped") == 0x1300


def test_a_pdb_that_is_at_hand_is_the_one_that_is_asked_later(place):
    place.put(APP)
    symbols, app = place.symbols(), image(PdbIdentity("app.pdb", GUID, 3))
    assert symbols.at_hand(app) is not None
    assert symbols.at_hand(app) is symbols(app)
    assert symbols.at_hand(image(PdbIdentity("other.pdb", GUID, 3))) is None


def test_pdbs_that_only_might_be_of_use_are_opened_up_to_a_limit(place, monkeypatch):
    monkeypatch.setattr("throwstack.pdb.pdb_symbols._MAX_OPEN", 0)
    place.put(APP)
    symbols, app = place.symbols(), image(PdbIdentity("app.pdb", GUID, 3))
    assert symbols.at_hand(app) is None
    assert symbols(app) is not None


def test_whether_a_pdb_is_at_hand_asks_no_server_and_says_nothing_of_another_build(place):
    class Server:
        def fetch(self, *_: object) -> bool:
            pytest.fail("asked")

    place.put(APP)
    elements = parse_symbol_path(f"{place.pdbs};https://symbols.example", place.cache)
    symbols = PdbSymbols(SymbolPath(elements, fetcher=Server(), say=pytest.fail), say=pytest.fail)
    assert symbols.at_hand(image(PdbIdentity("app.pdb", GUID, 2))) is None


def test_a_function_ends_where_the_next_begins(app):
    assert app.extent_of("foo", 0x4000) == (0x2010, 0x10)
    assert app.extent_of("foo", 8) == (0x2010, 8)
    assert app.extent_of("no_such_function", 0x4000) is None


def test_pdb_that_is_too_large(place):
    path = place.put(APP)
    assert place.table(max_size=1000) is None
    assert place.said == [f"{path}: refused: 0 MB are more than the limit of 0 MB"]


@pytest.mark.skipif(shutil.which("clang-19") is None, reason="clang-19 is not installed")
def test_a_pdb_of_a_real_linker(place, tmp_path):
    """Clang and lld make the PDB, of a program with `#line`."""
    source = tmp_path / "x.c"
    source.write_text(
        "int __stdcall leaf(int a, int b) { return a * b; }\n"
        "int any(int a, ...) { return a; }\n"
        '#line 18 "comraise.cpp"\n'
        "int start(void) { return leaf(1, 2) + leaf(3, 4) + any(5); }\n",
        encoding="utf-8",
    )
    build = (
        "clang-19 --target=i686-pc-windows-msvc -g -gcodeview -O0 -ffreestanding -c x.c -o x.obj && "
        "lld-link-19 /debug /subsystem:console /entry:start /nodefaultlib /safeseh:no /out:x.exe /pdb:app.pdb x.obj"
    )
    assert os.system(f"cd {tmp_path} && {build}") == 0
    from throwstack.pdb.pdb_identity import read_pdb_identity  # noqa: PLC0415

    found = read_pdb_identity(tmp_path / "app.pdb")
    shutil.copy(tmp_path / "app.pdb", place.pdbs)
    symbols = place.symbols()
    table = symbols(image(PdbIdentity("app.pdb", found.guid, found.age)))
    start = table.rva_of("start")
    (at,) = table.locate(start + 3)
    assert (at.symbol, at.is_inside) == ("start", True)
    assert at.source.endswith("comraise.cpp @ 18")
    assert table.locate(table.rva_of("leaf"))[0].facts.signature() == "int __stdcall leaf(int a, int b)"
    assert table.locate(table.rva_of("any"))[0].facts.signature() == "int __cdecl any(int a, ...)"
    assert symbols.frame_data(image(PdbIdentity("app.pdb", found.guid, found.age)), start + 3).program
