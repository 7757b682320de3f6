# SPDX-License-Identifier: Apache-2.0
"""PEB, TEBs, process parameters and loader lists, as the loader leaves them in a process's own memory.

The same code writes the 64-bit structures, the 32-bit ones, and WoW64's 32-bit ones from an x86 layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.forge.describe import LoadedModule, Process, Thread
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
_END_OF_CHAIN = 0xFFFFFFFF
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


@dataclass
class UserStructures:
    """Writes the structures of one process in one layout."""

    space: UserSpace
    layout: Layout
    version: Version
    process: Process
    load_time: int
    processors: int

    def claim_peb(self, peb: int) -> None:
        """Take a PEB's pages, before room for anything else is looked for."""
        self.space.claim(peb, self.layout.size("_PEB"), self.process.loader_residency)

    def write_peb(self, peb: int, modules: Sequence[LoadedModule], at: int | None = None) -> None:
        """Write PEB, process parameters and loader lists, these in a range of their own (`at`, or a free one)."""
        layout, process = self.layout, self.process
        path = process.image_path or (modules[0].path if modules else process.name)
        command_line = process.command_line or path
        environment = "".join(f"{text}\0" for text in process.environment)
        texts = [
            path,
            command_line,
            *filter(None, [environment]),
            *(text for module in modules for text in (module.path, module.name)),
        ]
        size = sum(2 * len(text) + 18 for text in texts) + _ENTRY_SIZE * len(modules)
        size += layout.size("_PEB_LDR_DATA") + layout.size("_RTL_USER_PROCESS_PARAMETERS") + 0x20
        if layout.has("_LDR_DDAG_NODE"):
            size += (layout.size("_LDR_DDAG_NODE") + 16) * len(modules)
        start = self.space.free_range(size, _FIRST_HEAP) if at is None else at
        self.space.claim(start, size, process.loader_residency)
        block = _Block(self.space, start)
        Structure(self.space, layout, "_PEB", peb).put_all(
            ImageBaseAddress=modules[0].base if modules else 0,
            Ldr=self._write_loader(block, modules),
            ProcessParameters=_write_parameters(block, layout, path, command_line, environment),
            NumberOfProcessors=self.processors,
            OSMajorVersion=self.version[0],
            OSMinorVersion=self.version[1],
            OSBuildNumber=self.version[2],
            OSPlatformId=2,
            SessionId=process.session,
        )

    def _write_loader(self, block: _Block, modules: Sequence[LoadedModule]) -> int:
        space, layout = self.space, self.layout
        data = Structure(space, layout, "_PEB_LDR_DATA", block.allocate(layout.size("_PEB_LDR_DATA")))
        data.put_all(Length=layout.size("_PEB_LDR_DATA"), Initialized=1)
        entries = [self._write_entry(block, module) for module in modules]
        for head, member in _LISTS:
            # The executable is not initialised by the loader: it is missing in the third list.
            listed = entries[1:] if head == "InInitializationOrderModuleList" else entries
            link(space, layout, [data.at(head), *(entry.at(member) for entry in listed)])
        return data.address

    def _write_entry(self, block: _Block, module: LoadedModule) -> Structure:
        space, layout = self.space, self.layout
        entry = Structure(space, layout, "_LDR_DATA_TABLE_ENTRY", block.allocate(_ENTRY_SIZE))
        entry.put_all(
            DllBase=module.base,
            EntryPoint=module.entry,
            SizeOfImage=module.size,
            Flags=_FLAGS,
            TimeDateStamp=module.timestamp,
            LoadTime=self.load_time,
        )
        entry.put_any(("LoadCount", "ObsoleteLoadCount"), _PINNED)
        entry.put_string("FullDllName", *block.unicode(module.path))
        entry.put_string("BaseDllName", *block.unicode(module.name))
        link(space, layout, [entry.at("HashLinks")])
        if entry.has("DdagNode"):
            node = Structure(space, layout, "_LDR_DDAG_NODE", block.allocate(layout.size("_LDR_DDAG_NODE")))
            node.put("LoadCount", 0xFFFFFFFF)
            entry.put("DdagNode", node.address)
        return entry

    def write_teb(self, teb: int, thread: Thread, peb: int, stack: tuple[int, int]) -> None:
        """Write a TEB: bounds of the stack (base, limit), the pointer to itself, ids, the pointer to the PEB."""
        fresh = self.space.region_at(teb) is None
        self.space.claim(teb, self.layout.size("_TEB"), self.process.teb_residency)
        block = Structure(self.space, self.layout, "_TEB", teb)
        if fresh and not self.layout.is_64bit:
            block.put("NtTib.ExceptionList", _END_OF_CHAIN)
        block.put("NtTib.StackBase", stack[0])
        block.put("NtTib.StackLimit", stack[1])
        block.put("NtTib.Self", teb)
        block.put("ClientId.UniqueProcess", self.process.pid)
        block.put("ClientId.UniqueThread", thread.tid)
        block.put("ProcessEnvironmentBlock", peb)


def _write_parameters(block: _Block, layout: Layout, path: str, command_line: str, environment: str) -> int:
    size = layout.size("_RTL_USER_PROCESS_PARAMETERS")
    parameters = Structure(block.space, layout, "_RTL_USER_PROCESS_PARAMETERS", block.allocate(size))
    parameters.put_all(MaximumLength=size, Length=size, Flags=_NORMALIZED)
    parameters.put_string("ImagePathName", *block.unicode(path))
    parameters.put_string("CommandLine", *block.unicode(command_line))
    if environment:
        parameters.put("Environment", block.unicode(environment)[0])
    return parameters.address
