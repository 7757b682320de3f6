# SPDX-License-Identifier: Apache-2.0
"""Where in a forged dump's physical memory each kind of thing is, and whose it is.

Made from what the forge noted while it wrote (`tests.fuzz.recording`), the description of the machine and the truth.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tests.forge.cases import Case
from tests.forge.paging import PRESENT, PROTOTYPE, TRANSITION, AddressSpace
from tests.forge.physical import PAGE
from tests.forge.structures import Structure
from tests.fuzz.image_parts import image_parts, telling_functions
from tests.fuzz.recording import Recording, WrittenProcess

Owners = frozenset[int] | None
"""The processes that see a piece of memory; None: all do."""

_FRAME = 0x000FFFFF_FFFFF000
_FIELDS = {
    "_EPROCESS": (
        *("UniqueProcessId", "ActiveProcessLinks", "Peb", "Pcb.DirectoryTableBase", "ThreadListHead", "VadRoot"),
        *("ImageFileName", "WoW64Process", "Wow64Process", "Pcb.ThreadListHead", "ObjectTable", "ActiveThreads"),
        *("SeAuditProcessCreationInfo.ImageFileName", "SectionBaseAddress", "CreateTime", "ExitTime", "Session"),
    ),
    "_ETHREAD": (
        *("ThreadListEntry", "Cid", "Tcb.Teb", "Tcb.TrapFrame", "Tcb.KernelStack", "Tcb.InitialStack", "Tcb.State"),
        *("Tcb.StackLimit", "Tcb.StackBase", "Tcb.WaitBlockList", "Tcb.WaitBlock", "Tcb.WaitTime", "StartAddress"),
        *(
            "Tcb.WaitReason",
            "Tcb.Process",
            "Tcb.ApcState.Process",
            "Win32StartAddress",
            "CreateTime",
            "Tcb.Win32Thread",
        ),
        *("Tcb.WaitBlockCount", "ExitTime", "Tcb.Header"),
    ),
    "_TEB": ("NtTib", "ClientId", "TlsSlots", "ProcessEnvironmentBlock"),
    "_PEB": ("Ldr", "ImageBaseAddress", "ProcessParameters"),
}
_CATEGORY = {
    "_EPROCESS": "processes",
    "_ETHREAD": "threads",
    "_KTRAP_FRAME": "trap frames",
    "_MMVAD": "VADs",
    "_MMVAD_SHORT": "VADs",
    "_HANDLE_TABLE": "handle tables",
    "_TEB": "TEBs",
    "_PEB": "loader data",
    "_PEB_LDR_DATA": "loader data",
    "_LDR_DATA_TABLE_ENTRY": "loader data",
    "_RTL_USER_PROCESS_PARAMETERS": "loader data",
    "_CONTROL_AREA": "sections",
    "_SEGMENT": "sections",
    "_SUBSECTION": "sections",
    "_FILE_OBJECT": "sections",
    "_SECTION_OBJECT_POINTERS": "sections",
    "_KUSER_SHARED_DATA": "kernel data",
    "_DBGKD_GET_VERSION64": "kernel data",
    "_KPCR": "kernel data",
    "_KPRCB": "kernel data",
}
_WAITING = "wait objects"


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one kind within one page. `pid` is the process they are looked at in; None for the kernel's."""

    category: str
    pid: int | None
    is_user: bool
    address: int
    physical: int
    size: int
    entry: int = 0
    """Physical address of the page-table entry of a user's page."""


class Atlas:
    """All pieces of a forged machine by category, and the owners of its memory."""

    def __init__(self, case: Case, record: Recording) -> None:
        assert record.physical is not None
        assert record.kernel is not None
        self.record = record
        self.physical = record.physical
        self.kernel = record.kernel
        self.entry_size = self.kernel.space.mode.entry_size
        self.pieces: dict[str, list[Piece]] = defaultdict(list)
        self._case = case
        self._users: dict[int, set[int]] = defaultdict(set)
        self._tables: dict[int, int | None] = {}
        self._owned: list[tuple[int, int, int | None]] = []
        self._everyone = frozenset(process.pid for process in record.processes)
        self._stores = frozenset(process.pid for process in record.processes if process.name == "MemCompression")
        self.values: dict[int | None, list[int]] = defaultdict(list)
        """Numbers that mean something to a process: addresses of its things."""
        self._kernel_things()
        for process in record.processes:
            self._process(process)
        for described in case.machine.processes:
            self._memory(described)
        self._truth()
        self._share_sections()
        self._owned.sort(key=lambda one: one[:2])
        self._starts = [start for start, _, _ in self._owned]

    def owners(self, physical: int, size: int) -> Owners:
        """Return who sees these bytes of physical memory.

        What belongs to the compressed store's process (pages, page tables, EPROCESS) leads to pages of everyone.
        """
        found = self._owners(physical, size)
        return found if found is None or not found & self._stores else found | self._everyone

    def _owners(self, physical: int, size: int) -> Owners:
        frame = physical // PAGE
        if frame in self._tables:
            pid = self._tables[frame]
            return None if pid is None else frozenset({pid})
        if frame in self._users:
            return frozenset(self._users[frame])
        found: set[int] = set()
        for at in {physical, physical + size - 1}:
            index = bisect_right(self._starts, at) - 1
            start, end, pid = self._owned[index] if index >= 0 else (0, 0, None)
            if pid is None or not start <= at < end:
                return None
            found.add(pid)
        return frozenset(found)

    # Where things are

    def frame(self, space: AddressSpace, address: int) -> tuple[int, int] | None:
        """Return the frame of a page that the tables lead to, and the physical address of its entry."""
        levels = space.mode.levels
        address &= (levels[0][1] << levels[0][0]) - 1
        found = space._tables.get((len(levels) - 1, address >> levels[-2][0]))
        if found is None:
            return None
        index = address >> 12 & levels[-1][1] - 1
        entry = space._get(found[1], index)
        if not entry & PRESENT and (entry & PROTOTYPE or not entry & TRANSITION):
            return None
        return (entry & _FRAME) // PAGE, found[0] * PAGE + index * self.entry_size

    def _add(self, category: str, pid: int | None, address: int, size: int, space: AddressSpace | None = None) -> None:
        """Note a range: of the user's half of `space`, or of the kernel's."""
        while size > 0:
            part = min(size, PAGE - address % PAGE)
            found = self.frame(space or self.kernel.space, address)
            if found is not None and found[0] in self.physical.pages:
                at = found[0] * PAGE + address % PAGE
                self.pieces[category].append(Piece(category, pid, space is not None, address, at, part, found[1]))
                if space is None:
                    self._owned.append((at, at + part, pid))
            address, size = address + part, size - part

    def _structure(self, block: Structure, pid: int | None, space: AddressSpace | None = None) -> None:
        category = _CATEGORY.get(block.name, _WAITING if space is None else "loader data")
        size = block.layout.size(block.name)
        fields = [path for path in _FIELDS.get(block.name, ()) if block.has(path)]
        known = len(self._owned)
        self._add(category, pid, block.address, size, space)
        whole = self._owned[known:]
        for path in fields * 2:
            member = block.layout.field(block.name, path)
            width = max(member.size * member.count, 8)
            self._add(category, pid, block.at(path), min(width, 0x40), space)
        del self._owned[known:]
        self._owned += whole

    # The kernel

    def _kernel_things(self) -> None:
        for block in self.record.shared:
            self._structure(block, None)
        header = self.kernel.layout.size("_POOL_HEADER")
        for address in self.record.tags:
            self._add("pool headers", None, address - header, header)
        for address, size in self.record.store:
            self._add("compressed store", None, address, size)
        for section in self.record.sections:
            self._add("sections", None, section.prototypes, section.pages * self.entry_size)
        for number in self.kernel._pages:
            self._add("kernel memory", None, number * PAGE, PAGE)
        self._owned.clear()
        self._note_tables(self.kernel.space, None)

    def _note_tables(self, space: AddressSpace, pid: int | None) -> None:
        """Note the tables with the entries that are in use; PAE's pointer tables may share a page."""
        for (level, prefix), (number, table) in space._tables.items():
            shift = space.mode.levels[level][0]
            is_kernel = level and prefix << space.mode.levels[level - 1][0] >= space.kernel_start
            if number not in self._tables or pid is None:
                self._tables[number] = None if is_kernel else pid
            base = space.root if level == 0 else number * PAGE
            for index in range(min(space.mode.levels[level][1], len(table) // self.entry_size)):
                if space._get(table, index):
                    address = (prefix * space.mode.levels[level][1] + index) << shift
                    at = base + index * self.entry_size
                    self.pieces["page tables"].append(
                        Piece("page tables", pid, False, address, at, self.entry_size, at)
                    )

    # One process

    def _process(self, process: WrittenProcess) -> None:
        pid = process.pid
        for block in process.kernel:
            self._structure(block, pid)
            self.values[pid].append(block.address)
            if block.name == "_EPROCESS":
                start = block.at("ActiveProcessLinks")
                self._cut(start, start + 2 * self.kernel.layout.pointer_size)
            elif block.name == "_ETHREAD":
                self._kernel_stack(block, pid)
        if process.space is not self.kernel.space:
            self._note_tables(process.space, pid)
            self._note_users(process)
        for block in process.user:
            self._structure(block, pid, process.space)
            self.values[pid].append(block.address)
            if block.name == "_LDR_DATA_TABLE_ENTRY":
                self._names(block, process)

    def _cut(self, start: int, end: int) -> None:
        """Take a range, given by its address, out of what belongs to one process: links of lists that all share."""
        found = self.frame(self.kernel.space, start)
        if found is None:
            return
        low = found[0] * PAGE + start % PAGE
        high = low + end - start
        kept: list[tuple[int, int, int | None]] = []
        for first, last, pid in self._owned:
            if first < high and low < last:
                kept += [(a, b, pid) for a, b in ((first, low), (high, last)) if a < b]
            else:
                kept.append((first, last, pid))
        self._owned = kept

    def _kernel_stack(self, thread: Structure, pid: int) -> None:
        width = self.kernel.layout.pointer_size
        limit, base, now = (
            int.from_bytes(self.kernel.read(thread.at(f"Tcb.{name}"), width), "little")
            for name in ("StackLimit", "InitialStack", "KernelStack")
        )
        self.values[pid] += [limit, base, now]
        low = max(limit, now - 0x100) if limit <= now < base else limit
        if 0 < base - low < 0x100000:
            self._add("kernel stacks", pid, low, base - low)

    def _names(self, entry: Structure, process: WrittenProcess) -> None:
        for name in ("BaseDllName", "FullDllName"):
            text = Structure(entry.memory, entry.layout, "_UNICODE_STRING", entry.at(name))
            size, buffer = (
                int.from_bytes(entry.memory.read(text.at(member), text.layout.field(text.name, member).size), "little")
                for member in ("Length", "Buffer")
            )
            self._add("module names", process.pid, buffer, min(size, 0x200), process.space)

    def _note_users(self, process: WrittenProcess) -> None:
        space = process.space
        shift, entries = space.mode.levels[-2][0], space.mode.levels[-1][1]
        for (level, prefix), (_, table) in space._tables.items():
            if level != len(space.mode.levels) - 1 or prefix << shift >= space.kernel_start:
                continue
            for index in range(entries):
                entry = space._get(table, index)
                if entry & PRESENT or (entry & TRANSITION and not entry & PROTOTYPE):
                    self._users[(entry & _FRAME) // PAGE].add(process.pid)

    def _memory(self, described: object) -> None:
        """Note stacks and images of a process as the case describes it."""
        process = next(one for one in self.record.processes if one.pid == described.pid)
        pid, space = process.pid, process.space
        values = self.values[pid]
        for thread in described.threads:
            sp = next(
                (thread.registers[name] for name in ("rsp", "esp") if name in thread.registers), thread.stack_limit
            )
            low = sp if thread.stack_limit <= sp < thread.stack_base else thread.stack_limit
            self._add("stacks", pid, low, min(thread.stack_base - low, 0x8000), space)
            values += [thread.stack_base, thread.stack_limit, sp, thread.teb, *thread.registers.values()]
            if thread.stack32_base:
                low = max(thread.stack32_limit, thread.stack32_base - 0x8000)
                self._add("stacks", pid, low, thread.stack32_base - low, space)
        for region in described.regions:
            values += [region.base, region.base + len(region.data)]
            if region.is_image:
                for category, rva, size in image_parts(region.data):
                    self._add(category, pid, region.base + rva, size, space)
                    values.append(region.base + rva)
                values += [region.base + rva + 0x10 for rva in telling_functions(region.data)] * 2
            elif len(region.data) <= 0x100000:
                self._add("process memory", pid, region.base, len(region.data), space)

    def _truth(self) -> None:
        """Note the saved contexts and records, and what was thrown, where the truth says that they are."""
        for stuck in self._case.truth.stuck:
            process = next(one for one in self.record.processes if one.pid == stuck.pid)
            is_64bit = stuck.arch == "x64"
            width, first = (8, 0x20) if is_64bit else (4, 0x14)
            if stuck.context:
                self._add("contexts", stuck.pid, stuck.context, 0x4D0 if is_64bit else 0xCC, process.space)
            self._add("exception records", stuck.pid, stuck.record, 0x98 if is_64bit else 0x50, process.space)
            self.values[stuck.pid] += [stuck.record, stuck.context]
            for frame in stuck.frames:
                self._add("stacks", stuck.pid, frame.child_sp - 0x20, 0x60, process.space)
            raw = self.read(process.space, stuck.record + first, 4 * width)
            words = [int.from_bytes(raw[at : at + width], "little") for at in range(0, len(raw), width)]
            self.values[stuck.pid] += words
            if stuck.code == 0xE06D7363 and len(words) == 4:
                self._add("thrown objects", stuck.pid, words[1], 0x40, process.space)
                base = words[3] if is_64bit else 0
                for address in self._throw_info(process.space, words[2], base):
                    self._add("throw information", stuck.pid, address, 0x24, process.space)

    def _throw_info(self, space: AddressSpace, address: int, base: int) -> Iterator[int]:
        def word(at: int) -> int:
            return base + int.from_bytes(self.read(space, at, 4), "little")

        yield address
        array = word(address + 12)
        yield array
        for index in range(min(word(array) - base, 8)):
            catchable = word(array + 4 + 4 * index)
            yield catchable
            yield word(catchable + 4)

    def read(self, space: AddressSpace, address: int, size: int) -> bytes:
        """Return the user's bytes that are in memory, as far as they are."""
        data = b""
        while len(data) < size:
            at = address + len(data)
            found = self.frame(space, at)
            if found is None:
                break
            page = bytes(self.physical.pages[found[0]]).ljust(PAGE, b"\0")
            data += page[at % PAGE : at % PAGE + size - len(data)]
        return data

    def _share_sections(self) -> None:
        """Pages of a section are seen by all that map it, by whatever entry."""
        for section in self.record.sections:
            region = section._region
            pids = {
                process.pid
                for process in self._case.machine.processes
                if any(one.base == region.base and one.file == region.file for one in process.regions)
            }
            for number in section._frames.values():
                self._users[number] |= pids
