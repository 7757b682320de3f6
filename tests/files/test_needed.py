# SPDX-License-Identifier: Apache-2.0
"""What to fetch for the stacks of a dump."""

from __future__ import annotations

from tests.pe_writer import X64, X86, Pe, Section
from throwstack.files.needed import manifest, needed_files
from throwstack.images import ImageMap
from throwstack.memory import memory_of
from throwstack.modules import Module, ModuleMap
from throwstack.symbols import SymbolKind, Symbols, SymbolTable

GUID = "6192BFDB9F04442995FFCB0BE95172E1"
BASE = 0x10000000
CODE = Section(".text", 0x1000, b"\x90" * 0x1000)


def symbols_of(pe: Pe, *, without: tuple[int, ...] = (), timestamp: int = 0, source=None) -> Symbols:
    """Make a process with `pe` loaded, without the pages at the RVAs `without`."""
    mapped = pe.mapped()
    present = {BASE + rva: mapped[rva : rva + 0x1000] for rva in range(0, pe.size, 0x1000) if rva not in without}
    module = Module("ntdll.dll", "", BASE, pe.size, timestamp)
    return Symbols(ImageMap(memory_of(present), ModuleMap([module])), source)


def needed(symbols: Symbols):
    return needed_files(symbols.images, symbols)


X86_APP = Pe(X86, BASE, 0x4A5BDADB, sections=[CODE], pdb=(GUID, 18, "ntdll.pdb"))


def test_pdb():
    (file,) = needed(symbols_of(X86_APP))
    assert file.manifest_line == f"ntdll.pdb,{GUID}12,1"
    assert (file.module, file.why) == ("ntdll", "function names (now from exports), source lines, frame data")


def test_pdb_at_hand():
    symbols = symbols_of(X86_APP, source=lambda _: SymbolTable(SymbolKind.PDB, [(0x1000, "f")]))
    assert needed(symbols) == ()


def test_image_whose_unwind_data_is_absent():
    """Its .pdata lies at 2000."""
    pe = Pe(X64, BASE, 0x4A5BDADB, sections=[CODE], functions=[(0x1000, 0x1100, 0x1800)])
    (file,) = needed(symbols_of(pe, without=(0x2000,)))
    assert file.manifest_line == "ntdll.dll,4A5BDADB3000,1"
    assert file.why == "its unwind data cannot be read"
    assert needed(symbols_of(pe)) == ()


def test_image_without_header_page():
    files = needed(symbols_of(X86_APP, without=(0,), timestamp=0x4A5BDADB))
    assert manifest(files) == f"ntdll.dll,4A5BDADB{X86_APP.size:x},1\n"
    assert needed(symbols_of(X86_APP, without=(0,))) == ()


def test_each_file_once():
    symbols = symbols_of(X86_APP)
    assert len(needed_files([*symbols.images, *symbols.images], symbols)) == 1


def test_hostile_names_are_left_out():
    for name in ("a,b\n.pdb", "..", "a\x1b.pdb"):
        pe = Pe(X86, BASE, 0x4A5BDADB, sections=[CODE], pdb=(GUID, 18, name))
        assert "\n" not in manifest(needed(symbols_of(pe)))
        assert "\x1b" not in manifest(needed(symbols_of(pe)))
