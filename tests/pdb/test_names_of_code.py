# SPDX-License-Identifier: Apache-2.0
"""Names of code that a PDB has in an odd way: underscores that belong to the name, functions with the same code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.compiled_pdb import compiled_pdb
from tests.support.pdb_writer import X64, X86, Pdb, Procedure, Public
from throwstack.pdb.pdb_file import PdbFile
from throwstack.pdb.pdb_table import PdbTable

GUID = "0123456789ABCDEF00112233445566AA"


def table(path: Path) -> PdbTable:
    return PdbTable(PdbFile(path), pytest.fail)


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a PDB and opens it."""

    def write(**parts) -> PdbTable:
        (tmp_path / "app.pdb").write_bytes(Pdb(GUID, **parts).to_bytes())
        return table(tmp_path / "app.pdb")

    return write


def names_at(symbols: PdbTable, rva: int) -> tuple[str, set[str]]:
    """Return the name of the function at `rva`, and the further names of the same code."""
    located = symbols.locate(rva)[-1]
    return located.symbol, set(located.facts.others())


# As in a PDB, and as a debugger shows them on x86 and on x64. C names have decorations on x86 only.
SPELLED = [
    ("_invoke_watson", "invoke_watson", "_invoke_watson"),
    ("__invoke_watson", "_invoke_watson", "__invoke_watson"),
    ("_LdrpInitialize@12", "LdrpInitialize", "_LdrpInitialize@12"),
    ("?price@shop@@YAHH@Z", "shop::price", "shop::price"),
    ("start", "start", "start"),
]


@pytest.mark.parametrize(("spelled", "x86", "x64"), SPELLED)
def test_an_underscore_comes_off_on_x86_only(written, spelled, x86, x64):
    for machine, shown in ((X86, x86), (X64, x64)):
        symbols = written(machine=machine, publics=[Public(spelled, 0x1010)])
        assert names_at(symbols, 0x1014) == (shown, set())
        assert symbols.rvas_of(shown) == [0x1010]


PUBLICS_ONLY = """
#define NI __attribute__((noinline))
extern "C" NI int _invoke_watson(int a) { volatile int v = a; return v; }
extern "C" NI int __report_gsfailure(int a) { volatile int v = a; return v + 1; }
extern "C" NI int rust(int a) __asm__("_RNvCs1234_7mycrate3foo");
int rust(int a) { volatile int v = a; return v + 2; }
namespace shop { NI int price(int a) { volatile int v = a; return v * 5; } }
extern "C" int start() { return _invoke_watson(1) + __report_gsfailure(2) + shop::price(3) + rust(4); }
"""


def test_public_symbols_of_a_compiled_x64_program(tmp_path):
    """Compiled without debug information: its PDB has public symbols only, as those of Microsoft's symbol server."""
    symbols = table(compiled_pdb(tmp_path, PUBLICS_ONLY, "x86_64-w64-mingw32", "-O1"))
    shown = [names_at(symbols, 0x1000 + 0x10 * number)[0] for number in range(5)]
    assert shown == ["_invoke_watson", "__report_gsfailure", "mycrate::foo", "shop::price", "start"]
    assert symbols.rvas_of("_invoke_watson") == [0x1000]
    assert symbols.rvas_of("invoke_watson") == []


def test_a_function_that_was_folded_with_one_of_another_module(written):
    """The linker keeps the code of one module. The record of the other function is in the other module."""
    symbols = written(
        procedures=[
            Procedure("Cart::total", 0x1000, 0x20, module="cart.obj"),
            Procedure("Order::total", 0x1000, 0x20, module="order.obj"),
            Procedure("Order::order", 0x1020, 0x20, module="order.obj"),
        ],
        publics=[Public("?total@Cart@@QAEHH@Z", 0x1000), Public("?total@Order@@QAEHH@Z", 0x1000)],
    )
    name, others = names_at(symbols, 0x1010)
    assert {name, *others} == {"Cart::total", "Order::total"}
    assert symbols.rvas_of("Order::total") == [0x1000]
    assert names_at(symbols, 0x1030) == ("Order::order", set())


@pytest.mark.parametrize("decorated", ["?price@@YAHH@Z", "__Z5pricei"])
def test_a_global_function_of_c_plus_plus_in_a_public_pdb(written, decorated):
    symbols = written(publics=[Public(decorated, 0x1040), Public("?pricey@@YAHH@Z", 0x1080)])
    assert symbols.rvas_of("price") == [0x1040]
    assert symbols.rvas_of("pric") == []


def test_folded_functions_of_a_stripped_pdb(written):
    """Up to 22 names are at one place in Microsoft's ntdll for x64."""
    names = [f"RtlpNothing{number}" for number in range(22)]
    symbols = written(publics=[Public(name, 0x1040) for name in names], machine=X64, is_stripped=True)
    name, others = names_at(symbols, 0x1044)
    assert {name, *others} == set(names)
    assert all(symbols.rvas_of(name) == [0x1040] for name in names)


TWINS = """
#define NI __declspec(noinline)
namespace shop {
struct Cart { int n; NI int total(int x) { volatile int a = x; return a * 31 + n; } };
struct Order { int n; NI int total(int x) { volatile int a = x; return a * 31 + n; } };
}
NI int twin_a(int x) { volatile int v = x; return v * 7 + 3; }
NI int twin_b(int x) { volatile int v = x; return v * 7 + 3; }
extern "C" int start() {
  shop::Cart cart{1};
  shop::Order order{2};
  return twin_a(1) + twin_b(2) + cart.total(3) + order.total(4);
}
"""


def test_folded_functions_of_a_compiled_program(tmp_path):
    options = ("-O1", "-g", "-gcodeview", "-ffunction-sections")
    symbols = table(compiled_pdb(tmp_path, TWINS, "x86_64-pc-windows-msvc", *options, link=("/opt:icf",)))
    for pair in ({"twin_a", "twin_b"}, {"shop::Cart::total", "shop::Order::total"}):
        (rva,) = {rva for name in pair for rva in symbols.rvas_of(name)}
        name, others = names_at(symbols, rva + 4)
        assert {name, *others} == pair
    (start,) = symbols.rvas_of("start")
    assert names_at(symbols, start) == ("start", set())
