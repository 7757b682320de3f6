# SPDX-License-Identifier: Apache-2.0
"""What is said of a process whose images do not name the functions in which stuck threads wait."""

from __future__ import annotations

import pytest

from tests.support.pe_writer import X64, Pe, Section
from throwstack.core.memory import memory_of
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import SymbolKind, Symbols, SymbolTable
from throwstack.stuck.missing_names import missing_names, without_filter

STUB = b"\x48\xff\x25\x00\x01\x00\x00".ljust(16, b"\xcc")
"""jmp qword ptr [import]: kernel32's filter since Windows 8."""
CODE = b"\x48\x89\x5c\x24\x08\x57\x48\x83\xec\x40".ljust(16, b"\x90")
FILTER, OTHER = "UnhandledExceptionFilter", "Sleep"
BASES = {"kernel32.dll": 0x7FF810000000, "KERNELBASE.dll": 0x7FF820000000, "ntdll.dll": 0x7FF830000000}

Exports = dict[str, int | str]


def process(code: bytes, modules: dict[str, Exports], absent: tuple[str, ...] = ()) -> Symbols:
    """Lay out modules with these exports, `code` at RVA 0x1000; `absent` ones without the page of their exports."""
    memory, loaded = {}, []
    for name, exports in modules.items():
        base = BASES[name]
        pe = Pe(
            X64, base, sections=[Section(".text", 0x1000, code.ljust(0x1000, b"\xcc"))], exports=list(exports.items())
        )
        data = pe.mapped()
        kept = 0x2000 if name in absent else len(data)
        memory[base] = data[:kept]
        loaded.append(Module(name, name, base, pe.size))
    return Symbols(ImageMap(memory_of(memory), ModuleMap(loaded)))


WITH: Exports = {FILTER: 0x1000, OTHER: 0x1800}
WITHOUT: Exports = {OTHER: 0x1800}
FORWARDS: Exports = {FILTER: f"KERNELBASE.{FILTER}", OTHER: 0x1800}


@pytest.mark.parametrize(
    ("code", "modules", "lacking"),
    [
        pytest.param(CODE, {"kernel32.dll": WITH, "ntdll.dll": WITHOUT}, [], id="Windows XP"),
        pytest.param(CODE, {"kernel32.dll": WITH, "KERNELBASE.dll": WITHOUT}, [], id="Windows 7"),
        pytest.param(STUB, {"kernel32.dll": WITH, "KERNELBASE.dll": WITH}, [], id="Windows 10"),
        pytest.param(STUB, {"kernel32.dll": FORWARDS, "KERNELBASE.dll": WITH}, [], id="forwarded"),
        pytest.param(STUB, {"ntdll.dll": WITHOUT}, [], id="smss: neither of them"),
        pytest.param(CODE, {"kernel32.dll": WITHOUT}, ["kernel32"], id="renamed"),
        pytest.param(
            STUB, {"kernel32.dll": WITH, "KERNELBASE.dll": WITHOUT}, ["KERNELBASE"], id="renamed in KERNELBASE"
        ),
        pytest.param(STUB, {"kernel32.dll": WITHOUT, "KERNELBASE.dll": WITH}, [], id="the stub renamed"),
    ],
)
def test_a_module_that_should_have_the_filter_and_does_not_is_named(
    code: bytes, modules: dict[str, Exports], lacking: list[str]
):
    symbols = process(code, modules)
    assert [image.module.label for image in without_filter(symbols)] == lacking
    nameless, reasons = missing_names(symbols)
    assert nameless == ()
    assert len(reasons) == len(lacking)
    assert all(label in reason for label, reason in zip(lacking, reasons, strict=True))


@pytest.mark.parametrize("code", [STUB, STUB[1:], b"\x8b\xff\x55\x8b\xec\x5d" + STUB[1:]])
def test_a_missing_kernelbase_is_named_if_kernel32_leads_there(code: bytes):
    """One damaged letter of its name in the loader's list, and no thread in its filter would be found."""
    (reason,) = missing_names(process(code, {"kernel32.dll": WITH, "ntdll.dll": WITHOUT}))[1]
    assert reason == f"no module is called KERNELBASE, to which {FILTER} of kernel32 leads"
    assert missing_names(process(CODE, {"kernel32.dll": WITH}))[1] == ()


def test_each_module_with_blockers_whose_exports_are_on_an_absent_page_is_named():
    symbols = process(CODE, {"kernel32.dll": WITH, "ntdll.dll": {"NtRaiseHardError": 0x1000}}, absent=("ntdll.dll",))
    assert missing_names(symbols) == (("ntdll",), ())


def test_other_symbols_replace_exports_that_are_absent():
    symbols = process(CODE, {"kernel32.dll": WITHOUT})
    table = SymbolTable(SymbolKind.PDB, [(0x1000, FILTER)])
    assert missing_names(Symbols(symbols.images, lambda _: table)) == ((), ())
