# SPDX-License-Identifier: Apache-2.0
"""PEB, TEBs, process parameters and loader lists, as the loader leaves them in a process's own memory.

The same code writes the 64-bit structures, the 32-bit ones, and WoW64's 32-bit ones from an x86 layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.forge.describe import LoadedModule, Process, Residency
from tests.forge.layouts import Layout, Version
from tests.forge.structures import Structure, link
from tests.forge.user_space import UserSpace

_LISTS = (
    ("InLoadOrderModuleList", "InLoadOrderLinks"),
    ("InMemoryOrderModuleList", "InMemoryOrderLinks"),
    ("InInitializationOrderModuleList", "InInitializationOrderLinks"),
)
_ENTRY_SIZE = 0x180
"""Room for a loader entry. Volatility reads a WoW64 entry's LoadTime at +0x100, whatever the entry's size."""
_FLAGS = 0x00004004
_PINNED = 0xFFFF
_NORMALIZED = 1
_FIRST_HEAP = 0x140000


@dataclass
class _Block:
    """A claimed range that is filled from its start."""

    space: UserSpace
    at: int

    def allocate(self, size: int) -> int:
        address = self.at
        self.at += -(-size // 16) * 16
        return address

    def unicode(self, text: str) -> tuple[int, int]:
        data = text.encode("utf-16-le")
        address = self.allocate(len(data) + 2)
        self.space.write(address, data + b"\0\0")
        return address, len(data)


def write_peb(
    space: UserSpace,
    layout: Layout,
    version: Version,
    process: Process,
    peb: int,
    modules: Sequence[LoadedModule],
    *,
    at: int | None = None,
    load_time: int = 0,
    processors: int = 1,
) -> None:
    """Write a PEB, the process parameters and the loader lists, these in a range of their own (`at`, or a free one)."""
    path = process.image_path or (modules[0].path if modules else process.name)
    texts = [path, process.command_line or path, *(text for module in modules for text in (module.path, module.name))]
    size = sum(2 * len(text) + 18 for text in texts) + _ENTRY_SIZE * len(modules)
    size += layout.size("_PEB_LDR_DATA") + layout.size("_RTL_USER_PROCESS_PARAMETERS") + 0x20
    if layout.has("_LDR_DDAG_NODE"):
        size += (layout.size("_LDR_DDAG_NODE") + 16) * len(modules)
    start = space.free_range(size, _FIRST_HEAP) if at is None else at
    space.claim(start, size, process.loader_residency)
    space.claim(peb, layout.size("_PEB"), process.loader_residency)
    block = _Block(space, start)
    loader = _write_loader(block, layout, modules, load_time)
    block_peb = Structure(space, layout, "_PEB", peb)
    block_peb.put_all(
        ImageBaseAddress=modules[0].base if modules else 0,
        Ldr=loader,
        ProcessParameters=_write_parameters(block, layout, path, process.command_line or path),
        NumberOfProcessors=processors,
        OSMajorVersion=version[0],
        OSMinorVersion=version[1],
        OSBuildNumber=version[2],
        OSPlatformId=2,
        SessionId=process.session,
    )


def _write_parameters(block: _Block, layout: Layout, path: str, command_line: str) -> int:
    size = layout.size("_RTL_USER_PROCESS_PARAMETERS")
    parameters = Structure(block.space, layout, "_RTL_USER_PROCESS_PARAMETERS", block.allocate(size))
    parameters.put_all(MaximumLength=size, Length=size, Flags=_NORMALIZED)
    parameters.put_string("ImagePathName", *block.unicode(path))
    parameters.put_string("CommandLine", *block.unicode(command_line))
    return parameters.address


def _write_loader(block: _Block, layout: Layout, modules: Sequence[LoadedModule], load_time: int) -> int:
    space = block.space
    data = Structure(space, layout, "_PEB_LDR_DATA", block.allocate(layout.size("_PEB_LDR_DATA")))
    data.put_all(Length=layout.size("_PEB_LDR_DATA"), Initialized=1)
    entries = []
    for module in modules:
        entry = Structure(space, layout, "_LDR_DATA_TABLE_ENTRY", block.allocate(_ENTRY_SIZE))
        entry.put_all(
            DllBase=module.base,
            EntryPoint=module.entry,
            SizeOfImage=module.size,
            Flags=_FLAGS,
            TimeDateStamp=module.timestamp,
            LoadTime=load_time,
        )
        entry.put_any(("LoadCount", "ObsoleteLoadCount"), _PINNED)
        entry.put_string("FullDllName", *block.unicode(module.path))
        entry.put_string("BaseDllName", *block.unicode(module.name))
        link(space, layout, [entry.at("HashLinks")])
        if entry.has("DdagNode"):
            node = block.allocate(layout.size("_LDR_DDAG_NODE"))
            entry.put("DdagNode", node)
            Structure(space, layout, "_LDR_DDAG_NODE", node).put("LoadCount", _PINNED << 16 | _PINNED)
        entries.append(entry)
    for head, member in _LISTS:
        # The executable is not initialised by the loader: it is missing in the third list.
        listed = entries[1:] if head == "InInitializationOrderModuleList" else entries
        link(space, layout, [data.at(head), *(entry.at(member) for entry in listed)])
    return data.address


def write_teb(
    space: UserSpace,
    layout: Layout,
    teb: int,
    *,
    peb: int,
    ids: tuple[int, int],
    stack: tuple[int, int],
    residency: Residency,
) -> None:
    """Write a TEB: `ids` are process and thread, `stack` is (base, limit)."""
    fresh = space.region_at(teb) is None
    space.claim(teb, layout.size("_TEB"), residency)
    block = Structure(space, layout, "_TEB", teb)
    if fresh and not layout.is_64bit:
        block.put("NtTib.ExceptionList", 0xFFFFFFFF)
    block.put("NtTib.StackBase", stack[0])
    block.put("NtTib.StackLimit", stack[1])
    block.put("NtTib.Self", teb)
    block.put("ClientId.UniqueProcess", ids[0])
    block.put("ClientId.UniqueThread", ids[1])
    block.put("ProcessEnvironmentBlock", peb)
