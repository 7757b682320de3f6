# SPDX-License-Identifier: Apache-2.0
"""The loader's list of a 32-bit process, laid out by hand, some of whose names are on a page that is not there."""

from __future__ import annotations

import struct
from typing import Any

from throwstack.core.memory import memory_of
from throwstack.images.modules import Module
from throwstack.volatility.objects.loader import LoaderReader

OFFSETS = {
    "_PEB.Ldr": 0xC,
    "_PEB_LDR_DATA.InLoadOrderModuleList": 0xC,
    "_LDR_DATA_TABLE_ENTRY.InLoadOrderLinks": 0,
    "_LDR_DATA_TABLE_ENTRY.DllBase": 0x18,
    "_LDR_DATA_TABLE_ENTRY.SizeOfImage": 0x20,
    "_LDR_DATA_TABLE_ENTRY.FullDllName": 0x24,
    "_LDR_DATA_TABLE_ENTRY.BaseDllName": 0x2C,
    "_UNICODE_STRING.Buffer": 4,
}
PEB, LDR, ENTRIES, NAMES, ABSENT = 0x7FFDF000, 0x251EA0, 0x251F00, 0x260000, 0x270000
EXE, DLL = 0x400000, 0x77E40000


class Layout:
    """The offsets, as XP and Server 2003 have them."""

    def find(self, path: str) -> int | None:
        return OFFSETS.get(path)


def text(address: int, value: str) -> bytes:
    return struct.pack("<HHI", 2 * len(value), 2 * len(value), address)


def entry(after: int, base: int, name: bytes) -> bytes:
    return struct.pack("<II16xIII", after, 0, base, 0, 0x10000) + name + name


def test_a_module_whose_name_is_on_an_absent_page_has_that_of_its_vad():
    """Called after its base KERNEL32 would be no module in which threads get stuck, and their process look healthy."""
    reader: Any = LoaderReader(Layout(), 4)  # type: ignore[arg-type] as much of one as is asked for
    second = ENTRIES + 0x40
    memory = memory_of(
        {
            PEB + 0xC: struct.pack("<I", LDR),
            LDR + 0xC: struct.pack("<I", ENTRIES),
            ENTRIES: entry(second, EXE, text(NAMES, "a.exe")),
            second: entry(LDR + 0xC, DLL, text(ABSENT, "kernel32.dll")),
            NAMES: "a.exe".encode("utf-16-le"),
        }
    )
    found = reader.read(memory, PEB)
    assert [(module.base, module.name) for module in found.modules] == [(EXE, "a.exe"), (DLL, "image77e40000")]
    assert found.problem == "the name of the module at 0x77e40000 is not readable"
    path = r"\WINDOWS\system32\kernel32.dll"
    by_vads = [Module("kernel32.dll", path, DLL, 0x20000), Module("b.exe", "", EXE, 0x20000)]
    assert [(module.name, module.size) for module in found.named_by(by_vads)] == [
        ("a.exe", 0x10000),
        ("kernel32.dll", 0x10000),
    ]
