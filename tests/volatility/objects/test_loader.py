# SPDX-License-Identifier: Apache-2.0
"""Loader lists laid out by hand, sound and broken. Offsets are those of a 32-bit process."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.forge.images import ImageBuilder
from throwstack.core.budgets import BUDGETS
from throwstack.core.memory import Memory, memory_of
from throwstack.images.modules import Module
from throwstack.volatility.objects.loader import (
    OF_WIN32,
    LoaderReader,
    mapped_files,
    modules_from_vads,
    with_own_names,
    with_system_names,
)

PEB, LDR, NAMES = 0x7FFDE000, 0x00241EA0, 0x00242000
ENTRY = 0x00242100
OFFSETS = {
    "_PEB.Ldr": 0x0C,
    "_PEB_LDR_DATA.InLoadOrderModuleList": 0x0C,
    "_LDR_DATA_TABLE_ENTRY.InLoadOrderLinks": 0,
    "_LDR_DATA_TABLE_ENTRY.DllBase": 0x18,
    "_LDR_DATA_TABLE_ENTRY.SizeOfImage": 0x20,
    "_LDR_DATA_TABLE_ENTRY.FullDllName": 0x24,
    "_LDR_DATA_TABLE_ENTRY.BaseDllName": 0x2C,
    "_LDR_DATA_TABLE_ENTRY.TimeDateStamp": 0x44,
    "_UNICODE_STRING.Buffer": 4,
}


class Layout32:
    """The members above, as a `Layout` gives them."""

    def find(self, path: str) -> int | None:
        return OFFSETS.get(path)


def reader() -> LoaderReader:
    return LoaderReader(Layout32(), 4)  # type: ignore[arg-type]


def entry(flink: int, base: int, size: int, path: str, at: int) -> dict[int, bytes]:
    """Return a loader entry at `at` which its path follows."""
    text = path.encode("utf-16-le")
    name = len(path.rpartition("\\")[2]) * 2
    data = bytearray(0x48)
    struct.pack_into("<II", data, 0, flink, 0)
    struct.pack_into("<III", data, 0x18, base, 0, size)
    struct.pack_into("<HHI", data, 0x24, len(text), len(text), at + 0x48)
    struct.pack_into("<HHI", data, 0x2C, name, name, at + 0x48 + len(text) - name)
    return {at: bytes(data) + text}


def process(first: int, *entries: dict[int, bytes]) -> dict[int, bytes]:
    memory = {PEB: struct.pack("<12xI", LDR), LDR: struct.pack("<12xII", first, 0)}
    for item in entries:
        memory.update(item)
    return memory


HEAD = LDR + 0x0C
NTDLL = r"C:\WINDOWS\system32\ntdll.dll"


def test_the_loader_list_is_followed_to_its_head():
    memory = process(
        ENTRY,
        entry(ENTRY + 0x200, 0x400000, 0x9000, r"C:\Program Files\iftpsvc.exe", ENTRY),
        entry(HEAD, 0x7C800000, 0xC0000, NTDLL, ENTRY + 0x200),
    )
    loaded = reader().read(memory_of(memory), PEB)
    assert [(module.name, module.base, module.size) for module in loaded.modules] == [
        ("iftpsvc.exe", 0x400000, 0x9000),
        ("ntdll.dll", 0x7C800000, 0xC0000),
    ]
    assert loaded.modules[1].path == NTDLL
    assert loaded.problem == ""


def test_an_unreadable_peb_is_reported():
    assert reader().read(memory_of({}), PEB).problem == "PEB at 0x7ffde000 is not readable"


def test_a_loader_list_that_breaks_off_keeps_the_modules_before_the_break():
    memory = process(ENTRY, entry(0x11110000, 0x400000, 0x9000, r"C:\a.exe", ENTRY))
    loaded = reader().read(memory_of(memory), PEB)
    assert [module.name for module in loaded.modules] == ["a.exe"]
    assert loaded.problem.startswith("module list breaks off at 0x111100")


def test_a_loader_list_with_a_cycle_ends():
    memory = process(
        ENTRY,
        entry(ENTRY + 0x200, 0x400000, 0x9000, r"C:\a.exe", ENTRY),
        entry(ENTRY, 0x7C800000, 0xC0000, NTDLL, ENTRY + 0x200),
    )
    loaded = reader().read(memory_of(memory), PEB)
    assert len(loaded.modules) == 2
    assert loaded.problem == "module list does not lead back to its head, but to 0x242100"


def test_impossible_loader_entries_are_left_out():
    memory = process(
        ENTRY,
        entry(ENTRY + 0x200, 0x400123, 0x9000, r"C:\unaligned.exe", ENTRY),
        entry(ENTRY + 0x400, 0x400000, 0, r"C:\empty.dll", ENTRY + 0x200),
        entry(HEAD, 0x500000, 0xFFFFFFFF, r"C:\huge.dll", ENTRY + 0x400),
    )
    loaded = reader().read(memory_of(memory), PEB)
    assert loaded.modules == ()
    assert loaded.problem == "module list has an entry at 0x242500 that makes no sense"


def without_its_names(broken: dict[int, bytes]) -> dict[int, bytes]:
    """Let both names of a loader entry be on an absent page."""
    ((at, whole),) = broken.items()
    data = bytearray(whole)
    struct.pack_into("<I", data, 0x28, 0x11110000)
    struct.pack_into("<I", data, 0x30, 0x11110000)
    return {at: bytes(data)}


def test_a_module_whose_names_are_paged_out_is_named_after_its_base():
    memory = process(ENTRY, without_its_names(entry(HEAD, 0x400000, 0x9000, r"C:\a.exe", ENTRY)))
    loaded = reader().read(memory_of(memory), PEB)
    assert loaded.modules == (Module("image400000", "", 0x400000, 0x9000),)
    assert loaded.problem == "the name of the module at 0x400000 is not readable"


def test_a_module_whose_names_are_paged_out_takes_the_name_of_its_vad():
    """KERNEL32 under another name would be no module in which threads get stuck: its process would look healthy."""
    path = r"C:\WINDOWS\system32\kernel32.dll"
    memory = process(
        ENTRY,
        entry(ENTRY + 0x200, 0x400000, 0x9000, r"C:\a.exe", ENTRY),
        without_its_names(entry(HEAD, 0x77E40000, 0x10000, path, ENTRY + 0x200)),
    )
    loaded = reader().read(memory_of(memory), PEB)
    by_vads = [Module("kernel32.dll", path, 0x77E40000, 0x20000), Module("b.exe", "", 0x400000, 0x20000)]
    assert [(module.name, module.size) for module in loaded.named_by(by_vads)] == [
        ("a.exe", 0x9000),
        ("kernel32.dll", 0x10000),
    ]


KERNEL32 = Module("kernel32.dll", r"C:\WINDOWS\system32\kernel32.dll", 0x77E40000, 0x10000)
APP = Module("a.exe", r"C:\a.exe", 0x400000, 0x9000)
OURS = Module("ntdll.dll", NTDLL, 0x7C800000, 0xC0000)


def test_a_system_dll_that_the_loader_calls_something_else_gets_its_name_from_the_vads():
    """One bit of `3` flipped is `7`. Threads that are stuck in KERNEL32 are not searched for in kernel72."""
    damaged = (APP, replace(KERNEL32, name="kernel72.dll"), OURS)
    named, problem = with_system_names(damaged, OF_WIN32, lambda: [KERNEL32, APP, OURS])
    assert named == (APP, KERNEL32, OURS)
    assert problem == "the loader calls kernel32.dll at 0x77e40000 kernel72.dll"


def test_the_vads_are_not_read_where_the_loader_has_all_names():
    assert with_system_names((APP, KERNEL32, OURS), OF_WIN32, lambda: pytest.fail("read")) == (
        (APP, KERNEL32, OURS),
        "",
    )


def test_a_process_without_kernel32_has_no_problem():
    """smss runs before the Win32 subsystem does."""
    assert with_system_names((APP, OURS), OF_WIN32, lambda: [APP, OURS]) == ((APP, OURS), "")


@pytest.mark.parametrize("own", ["mscoree.dll", "mscored.dll", "kernel32.dll"])
def test_a_dll_of_a_name_one_character_off_gets_its_name_from_its_export_directory(own: str):
    """`iscoree` is one flipped bit away from mscoree, in which a process hangs that cannot end: or a name by chance."""
    image = ImageBuilder(own, 0x10000000, 0x1000)
    image.name_function("CorExitProcess", 0x10001000, exported=True)
    data = image.build()
    found = Module("iscoree.dll", r"C:\app\iscoree.dll", image.base, len(data))
    named, problem = with_own_names((APP, found), memory_of({image.base: data}))
    is_wrong = own == "mscoree.dll"
    assert named == (APP, replace(found, name=own) if is_wrong else found)
    assert problem == ("the loader calls mscoree.dll at 0x10000000 iscoree.dll" if is_wrong else "")


class EndlessEntries:
    """A loader list of a million entries: each page is one, and leads to the next page."""

    def __init__(self, memory: dict[int, bytes]) -> None:
        self._memory = memory_of(memory)

    def page(self, address: int) -> bytes | None:
        if not 0x10000000 <= address < 0x70000000:
            return self._memory.page(address)
        (page,) = entry(address + 0x1000, 0x40000000 + address, 0x1000, r"C:\a.dll", 0).values()
        return page.ljust(0x1000, b"\0")


def test_an_endless_loader_list_is_followed_up_to_the_budget_and_the_problem_says_so():
    source = EndlessEntries(process(0x10000000))
    loaded = reader().read(Memory(source), PEB)
    assert len(loaded.modules) == BUDGETS.modules
    assert loaded.problem == "the budget of 4,096 modules is spent: the rest of the module list is left out"


class DeepTree:
    """A process whose VADs are so many levels deep that Volatility raises RuntimeError, as it does from 100 on."""

    def get_vad_root(self) -> DeepTree:
        return self

    def traverse(self) -> Iterator[MappedView]:
        yield MappedView()
        message = "Vad tree is too deep"
        raise RuntimeError(message)


class MappedView:
    """A VAD of a mapped DLL."""

    def get_file_name(self) -> str:
        return r"\Windows\a.dll"

    def get_start(self) -> int:
        return 0x400000

    def get_end(self) -> int:
        return 0x400FFF


def test_a_vad_tree_that_is_too_deep_keeps_the_views_read_before():
    said: list[str] = []
    (module,) = modules_from_vads(DeepTree(), said.append)  # type: ignore[arg-type]
    assert (module.name, module.base, module.size) == ("a.dll", 0x400000, 0x1000)
    assert said == ["the VADs break off: Vad tree is too deep"]


class ManyViews(DeepTree):
    """A process that maps more files than anybody does."""

    def traverse(self) -> Iterator[MappedView]:
        while True:
            yield MappedView()


def test_mapped_files_are_read_up_to_the_budget():
    said: list[str] = []
    assert sum(1 for _ in mapped_files(ManyViews(), said.append)) == BUDGETS.views  # type: ignore[arg-type]
    assert said == ["a process maps more files than the budget of 8,192: the others have no names"]
