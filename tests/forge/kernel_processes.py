# SPDX-License-Identifier: Apache-2.0
"""A process in the kernel: EPROCESS with its threads, VADs, session, handle table, and its own half of memory."""

from __future__ import annotations

from dataclasses import dataclass

from tests.forge.describe import Machine, Process, Thread, ThreadState
from tests.forge.kernel_data import boot_time
from tests.forge.kernel_memory import KernelMemory, Pool
from tests.forge.kernel_threads import write_thread
from tests.forge.layouts import Layout, Version
from tests.forge.paging import AddressSpace
from tests.forge.physical import PAGE
from tests.forge.structures import Structure, link
from tests.forge.user_space import SHARED_DATA, SectionCache, UserSpace
from tests.forge.user_structures import UserStructures
from tests.forge.vads import write_vads

SYSTEM = 4
"""The id of the process that has no memory of its own."""
_PROCESS_OBJECT = 3
_SECOND = 10_000_000
_TEB32_AFTER = 0x2000
_I386 = 0x14C
_STATUS_PENDING = 0x103
_FAST_REFERENCES = 7
"""The low bits of EPROCESS.Token, an EX_FAST_REF, which count references."""


@dataclass
class ProcessWriter:
    """Writes the processes of one machine."""

    machine: Machine
    version: Version
    kernel: KernelMemory
    sections: SectionCache
    shared_data_frame: int
    wow64_layout: Layout | None

    def __post_init__(self) -> None:
        self._sessions: dict[int, int] = {}
        self.running: list[int] = []
        """Addresses of the ETHREADs that a processor runs."""
        self.blocks: dict[int, Structure] = {}
        """ETHREADs by thread id, EPROCESSes by process id: the ids are of one table."""

    def write(self, process: Process, space: AddressSpace) -> Structure:
        """Write a process into memory; return its EPROCESS."""
        layout = self.kernel.layout
        address = process.address or self.kernel.allocate(layout.size("_EPROCESS"), before=0x80)
        block = self.blocks[process.pid] = Structure(self.kernel, layout, "_EPROCESS", address)
        user = UserSpace(process.regions, self.sections, space)
        if process.pid != SYSTEM and process.writes_loader_data:
            self._write_user_structures(process, user)
        self._write_identity(block, process, space)
        self._write_threads(block, process)
        if process.modules32 is not None:
            self._write_wow64(block, process)
        write_vads(self.kernel, block, user.finish(self.shared_data_frame))
        if process.pages_out_tables:
            user.page_out_tables()
        return block

    def _created(self, process: Process) -> int:
        return boot_time(self.machine) + process.create_seconds * _SECOND

    def _write_identity(self, block: Structure, process: Process, space: AddressSpace) -> None:
        block.put("Pcb.Header.Type", _PROCESS_OBJECT)
        block.put_any(("Pcb.Header.Size",), block.layout.size("_KPROCESS") // 4)
        link(self.kernel, block.layout, [block.at("Pcb.Header.WaitListHead")])
        block.put("Pcb.DirectoryTableBase", space.root)
        block.put("Pcb.BasePriority", 8)
        block.put("UniqueProcessId", process.pid)
        block.put("InheritedFromUniqueProcessId", process.ppid)
        block.put("CreateTime", self._created(process))
        block.put_any(("ExitStatus",), _STATUS_PENDING)
        block.put("Peb", 0 if process.pid == SYSTEM else process.peb)
        block.put_any(("SectionBaseAddress",), process.modules[0].base if process.modules else 0)
        block.put_bytes("ImageFileName", process.name.encode("ascii", "replace")[:15].ljust(15, b"\0"))
        block.put_any(("DebugPort",), process.debug_port)
        block.put_any(("ObjectTable",), self._write_handle_table(process))
        block.put_any(("Session",), self._session(process.session))
        if process.user_sid:
            block.put_any(("Token.Value", "Token"), self._write_token(process) | _FAST_REFERENCES)
        if block.has("SeAuditProcessCreationInfo.ImageFileName") and process.image_path:
            block.put("SeAuditProcessCreationInfo.ImageFileName", self._write_name(process.image_path))

    def _write_handle_table(self, process: Process) -> int:
        address = self.kernel.allocate_struct("_HANDLE_TABLE", Pool.PAGED, tag=b"Obtb")
        table = Structure(self.kernel, self.kernel.layout, "_HANDLE_TABLE", address)
        table.put_any(("UniqueProcessId",), process.pid)
        return table.address

    def _write_token(self, process: Process) -> int:
        """Write a token with its user: a SID_AND_ATTRIBUTES that points to the SID after it."""
        kernel, layout = self.kernel, self.kernel.layout
        pointer = 8 if layout.is_64bit else 4
        _, _, authority, *parts = process.user_sid.split("-")
        sid = bytes((1, len(parts))) + int(authority).to_bytes(6, "big")
        sid += b"".join(int(part).to_bytes(4, "little") for part in parts)
        size = layout.size("_TOKEN")
        address = process.token or kernel.allocate(size + 2 * pointer + len(sid), Pool.PAGED)
        token = Structure(kernel, layout, "_TOKEN", address)
        token.put("UserAndGroupCount", 1)
        token.put("UserAndGroups", address + size)
        kernel.write(address + size, (address + size + 2 * pointer).to_bytes(pointer, "little") + bytes(pointer) + sid)
        return address

    def _session(self, number: int) -> int:
        """Return the address of a session's _MM_SESSION_SPACE, of which only the head is there: its id at +8."""
        if number not in self._sessions:
            address = self._sessions[number] = self.kernel.allocate(0x1000, Pool.PAGED)
            self.kernel.write(address + 8, number.to_bytes(4, "little"))
        return self._sessions[number]

    def _write_name(self, path: str) -> int:
        """Write an OBJECT_NAME_INFORMATION: a UNICODE_STRING with its text after it."""
        layout, text = self.kernel.layout, path.encode("utf-16-le")
        size = layout.size("_UNICODE_STRING")
        name = Structure(self.kernel, layout, "_UNICODE_STRING", self.kernel.allocate(size + len(text) + 2, Pool.PAGED))
        name.put_all(Length=len(text), MaximumLength=len(text) + 2, Buffer=name.address + size)
        self.kernel.write(name.address + size, text + b"\0\0")
        return name.address

    def _write_threads(self, block: Structure, process: Process) -> None:
        layout, created = self.kernel.layout, self._created(process)
        threads = [write_thread(self.kernel, block, process.pid, thread, created) for thread in process.threads]
        self.blocks.update(zip((thread.tid for thread in process.threads), threads, strict=True))
        block.put("ActiveThreads", len(threads))
        running = (thread.state is ThreadState.RUNNING for thread in process.threads)
        self.running += [block.address for block, runs in zip(threads, running, strict=True) if runs]
        link(self.kernel, layout, [block.at("ThreadListHead"), *(t.at("ThreadListEntry") for t in threads)])
        link(self.kernel, layout, [block.at("Pcb.ThreadListHead"), *(t.at("Tcb.ThreadListEntry") for t in threads)])

    def _write_user_structures(self, process: Process, user: UserSpace) -> None:
        native = self._structures(process, user, self.kernel.layout)
        halves = [(native, process.peb, process.modules, process.loader_base)]
        if process.modules32 is not None:
            if self.wow64_layout is None:
                message = f"{process.name}: WoW64 on a system that is not 64-bit"
                raise ValueError(message)
            half = self._structures(process, user, self.wow64_layout)
            halves.append((half, peb32_address(process), process.modules32, None))
        for half, peb, _, _ in halves:
            half.claim_peb(peb)
        for thread in process.threads:
            native.write_teb(thread.teb, thread, process.peb, (thread.stack_base, thread.stack_limit))
            if process.modules32 is not None:
                self._write_teb32(halves[1][0], thread, halves[1][1])
        for half, peb, modules, at in halves:
            half.write_peb(peb, modules, at)

    def _structures(self, process: Process, user: UserSpace, layout: Layout) -> UserStructures:
        return UserStructures(user, layout, self.version, process, self._created(process), self.machine.processors)

    def _write_teb32(self, half: UserStructures, thread: Thread, peb32: int) -> None:
        """Write a 32-bit TEB that no region of the case holds; the 64-bit one points to it in any case."""
        teb32 = teb32_address(thread)
        if half.space.region_at(teb32) is None:
            half.write_teb(teb32, thread, peb32, (thread.stack32_base, thread.stack32_limit))
        half.space.write(thread.teb, teb32.to_bytes(8, "little"))  # NtTib.ExceptionList of the 64-bit TEB

    def _write_wow64(self, block: Structure, process: Process) -> None:
        """Point the EPROCESS at the 32-bit half: through a structure of its own before 6.0 and from 10 on."""
        kernel, layout, target = self.kernel, self.kernel.layout, peb32_address(process)
        for name, member in (("_EWOW64PROCESS", "Peb"), ("_WOW64_PROCESS", "Wow64")):
            if layout.has(name):
                half = Structure(kernel, layout, name, kernel.allocate_struct(name))
                half.put(member, target)
                half.put_any(("Machine",), _I386)
                target = half.address
                break
        block.put_any(("WoW64Process", "Wow64Process"), target)


def peb32_address(process: Process) -> int:
    """Return where a process's 32-bit PEB is: next to the 64-bit one, when the case doesn't say.

    It follows the 64-bit PEB in Windows 10; it precedes it in Windows 7, where the next page was not always free.
    """
    if process.peb32 is not None:
        return process.peb32
    return process.peb + (-PAGE if process.peb + PAGE == SHARED_DATA else PAGE)


def teb32_address(thread: Thread) -> int:
    """Return where a thread's 32-bit TEB is: right after the 64-bit one, when the case doesn't say."""
    return thread.teb + _TEB32_AFTER if thread.teb32 is None else thread.teb32
