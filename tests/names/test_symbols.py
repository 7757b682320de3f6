# SPDX-License-Identifier: Apache-2.0
"""Names of addresses, from the best source."""

from __future__ import annotations

import pytest

from tests.support.pdb_writer import Inline, Pdb, Procedure
from tests.support.pe_writer import X86, Pe, Section
from tests.unwind.x64 import assembler as asm
from throwstack.core.memory import memory_of
from throwstack.files.symbol_path import SymbolPath, parse_symbol_path
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.function_extent import Certainty
from throwstack.names.located_function import LocatedFunction
from throwstack.names.symbols import Name, SymbolKind, Symbols, SymbolTable, first_of
from throwstack.pdb.pdb_symbols import PdbSymbols

GUID = "0123456789ABCDEF00112233445566AA"
BASE = 0x03400000
CODE = Section(".text", 0x1000, b"\x40" * 0x4000)
EXPORTS = [("?f@A@@QAEXH@Z", 0x1100), (None, 0x1200), ("First", 0x1300), ("Moved", "NTDLL.RtlMoved"), (None, 0x1300)]


def images(pe: Pe, name: str = "ftpsrvdata-pg.dll") -> ImageMap:
    module = Module(name, name, BASE, pe.size)
    return ImageMap(memory_of({BASE: pe.mapped()}), ModuleMap([module]))


@pytest.fixture
def exporting():
    return images(Pe(X86, BASE, sections=[CODE], exports=EXPORTS))


def test_an_address_is_named_by_the_export_before_it(exporting):
    symbols = Symbols(exporting)
    name = symbols.name(BASE + 0x1110)
    assert (str(name), name.raw, name.provenance) == ("ftpsrvdata_pg!A::f+0x10", "?f@A@@QAEXH@Z", "export")
    assert str(symbols.name(BASE + 0x1200)) == "ftpsrvdata_pg!Ordinal2"
    assert str(symbols.name(BASE + 0x1304)) == "ftpsrvdata_pg!First+0x4"
    assert str(symbols.name(BASE + 0x1004)) == "ftpsrvdata_pg+0x1004"
    assert str(symbols.name(0x1234)) == "0x1234"


def test_forwarded_export_names_no_code(exporting):
    assert list(Symbols(exporting).find("Moved")) == []
    assert [address for _, address in Symbols(exporting).find("First")] == [BASE + 0x1300]


def test_nearest_export_far_away_is_doubtful(exporting):
    name = Symbols(exporting).name(BASE + 0x3000)
    assert str(name) == "ftpsrvdata_pg!First+0x1d00"
    assert name.is_doubtful
    assert name.provenance == "export?"


def test_the_first_source_with_symbols_is_used(exporting):
    def nothing(_):
        return None

    def empty(_):
        return SymbolTable(SymbolKind.PDB, ())

    def isf(_):
        return SymbolTable(SymbolKind.ISF, [(0x1000, "FromIsf")])

    def pdb(_):
        return SymbolTable(SymbolKind.PDB, [(0x1000, "FromPdb")])

    address = BASE + 0x1004
    assert str(Symbols(exporting, first_of(nothing, empty, isf)).name(address)) == "ftpsrvdata_pg!FromIsf+0x4"
    assert str(Symbols(exporting, first_of(pdb, isf)).name(address)) == "ftpsrvdata_pg!FromPdb+0x4"
    assert Symbols(exporting, empty).name(BASE + 0x1300).kind is SymbolKind.EXPORT
    assert Symbols(exporting, nothing, fallback=pdb).name(BASE + 0x1300).kind is SymbolKind.EXPORT
    bare = images(Pe(X86, BASE, sections=[CODE]))
    assert Symbols(bare, nothing, fallback=isf).name(address).symbol == "FromIsf"
    assert Symbols(bare, nothing).name(address) == Name(address, "ftpsrvdata_pg", "", 0x1004)


def test_each_source_is_asked_once(exporting):
    asked = []
    symbols = Symbols(exporting, asked.append)
    for offset in range(0x1000, 0x1400):
        symbols.name(BASE + offset)
    assert len(asked) == 1


def test_addresses_outside_every_image_are_named_by_name_outside(exporting):
    def elsewhere(address: int) -> Name | None:
        return Name(address, "<Unloaded_gone.dll>", "", 0x1234) if address == 0x7001234 else None

    symbols = Symbols(exporting, name_outside=elsewhere)
    assert str(symbols.name(0x7001234)) == "<Unloaded_gone.dll>+0x1234"
    assert str(symbols.name(0x8001234)) == "0x8001234"
    assert str(symbols.name(BASE + 0x1300)) == "ftpsrvdata_pg!First"


RAISE = r"f:\sp\vctools\compiler\cxxfe\sl\vccom\comraise.cpp"
SUPPORT = r"f:\sp\vctools\compiler\cxxfe\sl\vccom\comsupp.cpp"
COMMAND = r"d:\fts\ftpsrvdata_pg\src\idbcommand.cpp"
STATS = r"d:\fts\ftpsrvdata_pg\src\ftpsystemstats_impl.cpp"
STACK = [
    (0x03403222, "_com_raise_error", 0x32, RAISE, 18),
    (0x03402F9D, "_com_issue_error", 0xD, SUPPORT, 40),
    (0x033F87B5, "PrintProviderError", 0x35, COMMAND, 860),
    (0x033F9812, "IDBCommand::ExecuteResults", 0x2A2, COMMAND, 610),
    (0x033DBF4A, "IFTPSystemStats_Impl::UpdateSystemStats", 0xAA, STATS, 288),
]
"""Return address, function, offset, file and line: `kb` of a crashed FTP service, as WinDbg printed it."""


def test_functions_files_and_lines_of_return_addresses(tmp_path):
    """The instruction after each call is of another line: a return address that is looked up as it is would show it."""
    base = 0x033D0000
    pdb = Pdb(
        GUID,
        procedures=[
            Procedure(
                name,
                address - offset - base,
                offset + 8,
                [(0, file, 1), (offset - 1, file, line), (offset, file, 9)],
                (),
            )
            for address, name, offset, file, line in STACK
        ],
    )
    (tmp_path / "ftpsrvdata_pg.pdb").write_bytes(pdb.to_bytes())
    pe = Pe(X86, base, sections=[Section(".text", 0x1000, b"\x40" * 0x3F000)], pdb=(GUID, 1, "ftpsrvdata_pg.pdb"))
    module = Module("ftpsrvdata_pg.dll", "", base, pe.size)
    path = SymbolPath(parse_symbol_path(str(tmp_path), tmp_path), say=pytest.fail)
    symbols = Symbols(
        ImageMap(memory_of({base: pe.mapped()}), ModuleMap([module])),
        PdbSymbols(path, say=pytest.fail),
    )
    for address, name, offset, file, line in STACK:
        named = symbols.name(address, is_return_address=True)
        assert str(named) == f"ftpsrvdata_pg!{name}+{offset:#x}"
        assert named.source == f"{file} @ {line}"
        assert not named.is_doubtful
        assert named.provenance == "pdb"
    assert symbols.name(STACK[0][0]).source == f"{RAISE} @ 9"


def test_a_call_that_never_returns_is_in_its_own_function(tmp_path):
    pdb = Pdb(
        GUID,
        procedures=[
            Procedure("thrower", 0x1000, 0x10, [(0, "t.cpp", 7)], (), [Inline("raise", "r.h", 3, [(8, 8, 4)])]),
            Procedure("next", 0x1010, 0x10, [(0, "t.cpp", 20)]),
        ],
    )
    (tmp_path / "app.pdb").write_bytes(pdb.to_bytes())
    pe = Pe(X86, BASE, sections=[CODE], pdb=(GUID, 1, "app.pdb"))
    path = SymbolPath(parse_symbol_path(str(tmp_path), tmp_path), say=pytest.fail)
    symbols = Symbols(images(pe), PdbSymbols(path, say=pytest.fail))
    inner, outer = symbols.frames_at(BASE + 0x1010, is_return_address=True)
    assert (str(inner), inner.source, inner.is_inline) == ("ftpsrvdata_pg!raise", "r.h @ 4", True)
    assert (str(outer), outer.source, outer.is_inline) == ("ftpsrvdata_pg!thrower+0x10", "t.cpp @ 7", False)
    assert [str(name) for name in symbols.frames_at(BASE + 0x1010)] == ["ftpsrvdata_pg!next"]


def test_the_nearest_export_is_doubtful_if_addresses_of_exports_could_not_be_read(exporting):
    """Between two exports there may be another one, whose address was on an absent page."""
    (image,) = exporting
    table = SymbolTable(SymbolKind.EXPORT, [(0x1300, "First")], has_all_starts=False)
    symbols = Symbols(exporting, lambda _: table)
    assert [symbols.name(BASE + rva).provenance for rva in (0x1300, 0x1304)] == ["export", "export?"]
    whole = Symbols(exporting, lambda _: SymbolTable(SymbolKind.EXPORT, [(0x1300, "First")]))
    assert whole.name(BASE + 0x1304).provenance == "export"
    assert image.exports.has_all_starts


def test_a_distrusted_image_is_named_by_its_file(exporting):
    (image,) = exporting
    symbols = Symbols(exporting, fallback=lambda _: SymbolTable(SymbolKind.EXPORT, [(0x1300, "Real")]))
    assert str(symbols.name(BASE + 0x1300)) == "ftpsrvdata_pg!First"
    symbols.distrust(image)
    assert str(symbols.name(BASE + 0x1300)) == "ftpsrvdata_pg!Real"
    assert symbols.rva_of(image, "Real") == 0x1300


def separate_parts(exports: dict[str, int]) -> ImageMap:
    """Two functions, at 1040 `parse` and at 1080 `print`; before and after them two parts of `parse`.

    The parts have RUNTIME_FUNCTIONs that are chained to that of `parse`.
    """
    builder = asm.ImageBuilder(b"\x90" * 0x200, exports=exports)
    plain = asm.unwind_info([], 0)
    parse = builder.add(0x1040, 0x1080, plain)
    builder.add(0x1080, 0x10C0, plain)
    for begin in (0x1000, 0x1100):
        builder.add(begin, begin + 0x40, asm.unwind_info([], 0, chained=parse))
    data = builder.build()
    return ImageMap(memory_of({BASE: data}), ModuleMap([Module("app.exe", "app.exe", BASE, len(data))]))


@pytest.mark.parametrize("kind", SymbolKind)
def test_a_separate_part_has_the_name_of_its_function(kind):
    """Code that seldom runs ("cold") is apart from its function, and another function's symbol is nearer."""
    starts = {"parse": 0x1040, "print": 0x1080}
    symbols = Symbols(separate_parts({}), lambda _: SymbolTable(kind, ((rva, name) for name, rva in starts.items())))
    after, before = symbols.name(BASE + 0x1110), symbols.name(BASE + 0x1010)
    assert [str(after), str(before)] == ["app!parse+0xd0", "app!parse-0x30"]
    assert after.is_certain
    assert before.is_certain
    assert str(symbols.name(BASE + 0x10C0, is_return_address=True)) == "app!print+0x40"


def test_a_separate_part_with_a_symbol_of_its_own_keeps_it():
    starts = {"parse": 0x1040, "print": 0x1080, "parse$cold": 0x1100}
    table = SymbolTable(SymbolKind.ISF, ((rva, name) for name, rva in starts.items()))
    symbols = Symbols(separate_parts({}), lambda _: table)
    part, other = symbols.name(BASE + 0x1110), symbols.name(BASE + 0x1090)
    assert str(part) == "app!parse$cold+0x10"
    assert str(symbols.whole_function(part)) == "app!parse+0xd0"
    assert symbols.whole_function(other) is other


def test_a_part_of_a_function_without_a_symbol_has_a_doubtful_name():
    name = Symbols(separate_parts({"print": 0x1080})).name(BASE + 0x1110)
    assert (str(name), name.provenance, name.certainty) == ("app!print+0x90", "export?", Certainty.DOUBTFUL)


def test_only_a_name_with_a_symbol_can_be_certain(exporting):
    symbols = Symbols(exporting)
    assert [symbols.name(BASE + rva).is_certain for rva in (0x1300, 0x1304, 0x3000, 0x1004)] == [
        *(True, True),  # the code runs on from the export
        *(False, False),
    ]
    assert not symbols.name(0x1234).is_certain


class Compiled:
    """Knows that the code at 0x1100 to 0x11ff is of a method of .NET."""

    def locate(self, image: Image, rva: int) -> LocatedFunction | None:
        return LocatedFunction("Shop.Orders.Place(String name)", 0x1100) if 0x1100 <= rva < 0x1200 else None


def test_a_precompiled_method_is_named_by_the_runtime_before_any_symbol(exporting):
    symbols = Symbols(exporting, compiled=Compiled())
    name = symbols.name(BASE + 0x1110)
    assert (str(name), name.provenance) == ("ftpsrvdata_pg!Shop.Orders.Place(String name)+0x10", "clr")
    assert name.is_certain
    assert str(symbols.name(BASE + 0x1200)) == "ftpsrvdata_pg!Ordinal2"
    returned = symbols.name(BASE + 0x1200, is_return_address=True)
    assert str(returned) == "ftpsrvdata_pg!Shop.Orders.Place(String name)+0x100"
    assert [symbols.method_start(BASE + rva) for rva in (0x1110, 0x1200)] == [BASE + 0x1100, None]
    assert symbols.method_start(0x1234) is None
    assert Symbols(exporting).method_start(BASE + 0x1110) is None
