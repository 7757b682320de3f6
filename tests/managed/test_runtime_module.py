# SPDX-License-Identifier: Apache-2.0
"""Which image is a runtime, and which version it is."""

from __future__ import annotations

import struct

import pytest

from tests.support.pe_writer import CODE, DATA, X64, X86, Pe, Section
from throwstack.core.memory import PAGE_SIZE, memory_of
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.managed.runtime_module import RuntimeFamily, find_runtime_module, why_overlooked

BASE = 0x10000000


def images(*named: tuple[str, str], version: tuple[int, int, int, int] | None = None, export: str = "") -> ImageMap:
    """Return images of these names and directories, with a version resource and an export."""
    numbers = () if version is None else version
    info = (
        struct.pack("<II", 0xFEEF04BD, 0x10000) + struct.pack("<4H", *(numbers[at] for at in (1, 0, 3, 2)))
        if numbers
        else b""
    )
    exports: list[tuple[str | None, int | str]] = [(export, 0x1000)] if export else []
    pe = Pe(X64, BASE, sections=[Section(".rsrc", 0x1000, bytes(64) + info + bytes(64), DATA)], exports=exports)
    modules = [
        Module(name, rf"{folder}\{name}", BASE + index * 0x100000, pe.size)
        for index, (name, folder) in enumerate(named)
    ]
    memory = memory_of({module.base: pe.mapped() for module in modules})
    return ImageMap(memory, ModuleMap(modules))


SHARED = r"c:\dotnet\shared\Microsoft.NETCore.App"


@pytest.mark.parametrize(
    ("name", "folder", "version", "words"),
    [
        ("coreclr.dll", rf"{SHARED}\8.0.4", None, ".NET 8.0.4"),
        ("coreclr.dll", rf"{SHARED}\10.0.0-rc.1", None, ".NET 10.0.0-rc.1"),
        ("coreclr.dll", r"c:\app", (8, 0, 424, 16909), ".NET (8.0.424.16909)"),
        ("coreclr.dll", rf"{SHARED}\{'8' * 5000}.0", (8, 0, 424, 16909), ".NET (8.0.424.16909)"),
        ("coreclr.dll", r"c:\app", None, ".NET"),
        ("clr.dll", r"c:\windows", (4, 8, 4515, 0), ".NET Framework 4 (4.8.4515.0)"),
        ("MSCORWKS.DLL", r"c:\windows", (2, 0, 50727, 8000), ".NET Framework 2.0 to 3.5 (2.0.50727.8000)"),
    ],
)
def test_the_version_is_that_of_the_directory_or_of_the_file(
    name: str, folder: str, version: tuple[int, int, int, int] | None, words: str
) -> None:
    found = find_runtime_module(images(("app.exe", r"c:\app"), (name, folder), version=version))
    assert found is not None
    assert found.version == words


@pytest.mark.parametrize("export", ["DotNetRuntimeInfo", "DotNetRuntimeContractDescriptor"])
def test_an_exe_that_has_the_runtime_in_it_is_one_and_its_own_version_is_not_the_runtime_s(export: str) -> None:
    found = find_runtime_module(images(("app.exe", r"c:\app"), version=(1, 2, 3, 4), export=export))
    assert found is not None
    assert (found.family, found.version) == (RuntimeFamily.CORE, ".NET")


@pytest.mark.parametrize(
    ("info", "words", "has_types"),
    [
        ((b"DotNetRuntimeInfo", 2, 10, 0, 1226, 42308), ".NET (10.0.1226.42308)", True),
        ((b"DotNetRuntimeInfo", 2, 7, 0, 2024, 26716), ".NET (7.0.2024.26716)", False),
        ((b"DotNetRuntimeInfo", 1, 10, 0, 1226, 42308), ".NET", False),
        ((b"DotNetRuntimeInf0", 2, 10, 0, 1226, 42308), ".NET", False),
    ],
)
def test_a_runtime_in_an_exe_tells_its_version_in_its_own_information(
    info: tuple[bytes, int, int, int, int, int], words: str, has_types: bool
) -> None:
    """.NET 8 and later; before, the structure had no version (1), and function pointers were IntPtr."""
    exports: list[tuple[str | None, int | str]] = [("DotNetRuntimeInfo", 0x1010)]
    data = bytes(16) + struct.pack("<18s2xI72x4I", *info)
    pe = Pe(X64, BASE, sections=[Section(".data", 0x1000, data, DATA)], exports=exports)
    module = Module("shop.exe", "", BASE, pe.size)
    found = find_runtime_module(ImageMap(memory_of({BASE: pe.mapped()}), ModuleMap([module])))
    assert found is not None
    assert (found.version, found.has_function_pointer_types) == (words, has_types)


@pytest.mark.parametrize(
    ("name", "folder", "version", "has_types"),
    [
        ("coreclr.dll", rf"{SHARED}\8.0.4", None, True),
        ("coreclr.dll", rf"{SHARED}\7.0.20", None, False),
        ("coreclr.dll", r"c:\app", (8, 0, 424, 16909), True),
        ("coreclr.dll", rf"{SHARED}\{'8' * 5000}.0", None, False),
        ("coreclr.dll", r"c:\app", (4, 700, 22, 11601), False),
        ("coreclr.dll", r"c:\app", None, False),
        ("clr.dll", r"c:\windows", (8, 0, 1, 1), False),
    ],
)
def test_function_pointers_are_types_from_net_8_on(
    name: str, folder: str, version: tuple[int, int, int, int] | None, has_types: bool
) -> None:
    found = find_runtime_module(images((name, folder), version=version))
    assert found is not None
    assert found.has_function_pointer_types is has_types


def test_of_two_runtimes_the_newer_family_is_taken() -> None:
    found = find_runtime_module(images(("mscorwks.dll", ""), ("clr.dll", "")))
    assert found is not None
    assert found.family is RuntimeFamily.FRAMEWORK_4


@pytest.mark.parametrize("export", ["", "DotNetRuntimeDebugHeader"])
def test_other_processes_have_none(export: str) -> None:
    assert find_runtime_module(images(("app.exe", ""), ("ntdll.dll", ""), export=export)) is None


def single_file(*absent: int, machine: int = X64, section: str = ".text") -> ImageMap:
    """Return the image of an EXE that exports `DotNetRuntimeInfo`, without the pages at the RVAs `absent`."""
    exports: list[tuple[str | None, int | str]] = [("DotNetRuntimeInfo", 0x1000)]
    pe = Pe(machine, BASE, sections=[Section(section, 0x1000, bytes(64), CODE)], exports=exports)
    pages = {BASE + at: pe.mapped()[at : at + PAGE_SIZE] for at in range(0, pe.size, PAGE_SIZE) if at not in absent}
    return ImageMap(memory_of(pages), ModuleMap([Module("shop.exe", "", BASE, pe.size)]))


@pytest.mark.parametrize("machine", [X64, X86])
def test_an_exe_whose_headers_or_exports_are_absent_may_hide_a_runtime_and_the_page_is_said(machine: int) -> None:
    said = "a runtime that is linked into shop.exe cannot be found, because page {}, with its {}, is absent"
    for absent, page, part in ((0, "0x10000000", "headers"), (0x2000, "0x10002000", "exports")):
        images = single_file(absent, machine=machine)
        assert find_runtime_module(images) is None
        assert why_overlooked(images) == said.format(page, part)
    assert why_overlooked(single_file(machine=machine)) == ""


def test_without_the_exports_the_section_of_the_runtimes_exception_filter_tells_it() -> None:
    found = find_runtime_module(single_file(0x2000, section=".CLR_UEF"))
    assert found is not None
    assert found.family is RuntimeFamily.CORE
    assert find_runtime_module(images(("app.exe", ""), export="Other")) is None


def test_headers_that_are_no_headers_are_said_to_be_damaged() -> None:
    images = ImageMap(memory_of({BASE: bytes(PAGE_SIZE)}), ModuleMap([Module("shop.exe", "", BASE, PAGE_SIZE)]))
    assert why_overlooked(images).endswith("because its headers are damaged")


def test_dlls_hide_no_runtime() -> None:
    assert why_overlooked(ImageMap(memory_of({}), ModuleMap([Module("shop.dll", "", BASE, PAGE_SIZE)]))) == ""
