# SPDX-License-Identifier: Apache-2.0
"""A process in the kernel: EPROCESS with its threads, VADs, session, handle table, and its own half of memory."""

from __future__ import annotations

from dataclasses import dataclass

from tests.forge.describe import Machine, Paging, Process
from tests.forge.kernel_data import boot_time
from tests.forge.kernel_memory import KernelMemory, Pool
from tests.forge.kernel_threads import write_thread
from tests.forge.layouts import Layout, Version
from tests.forge.paging import AddressSpace
from tests.forge.structures import Structure, link
from tests.forge.user_space import SectionCache, UserSpace
from tests.forge.user_structures import write_peb, write_teb
from tests.forge.vads import write_vads

_PROCESS_OBJECT = 3
_SECOND = 10_000_000
_TEB32_AFTER = 0x2000
_I386 = 0x14C


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

    def write(self, process: Process, space: AddressSpace, *, has_user_memory: bool = True) -> Structure:
        """Write a process into memory; return its EPROCESS."""
        layout = self.kernel.layout
        address = process.address or self.kernel.allocate(layout.size("_EPROCESS"), before=0x80)
        block = Structure(self.kernel, layout, "_EPROCESS", address)
        user = UserSpace(process.regions, self.sections, space)
        if has_user_memory and process.writes_loader_data:
            self._write_user_structures(process, user)
        self._write_identity(block, process, space)
        self._write_threads(block, process)
        if process.modules32 is not None:
            self._write_wow64(block, process)
        write_vads(self.kernel, block, user.finish(self.shared_data_frame) if has_user_memory else [])
        if not has_user_memory:
            user.finish(self.shared_data_frame)
        return block

    def _created(self, process: Process) -> int:
        return boot_time(self.machine) + process.create_seconds * _SECOND

    def _write_identity(self, block: Structure, process: Process, space: AddressSpace) -> None:
        block.put("Pcb.Header.Type", _PROCESS_OBJECT)
        block.put_any(("Pcb.Header.Size",), block.layout.size("_KPROCESS") // 4)
        link(self.kernel, block.layout, [block.at("Pcb.Header.WaitListHead")])
        block.put("Pcb.DirectoryTableBase", space.root)
        block.put("Pcb.BasePriority", 8)
        if self.machine.paging is Paging.PAE:
            block.put_any(("PaeTop",), 0)
        block.put("UniqueProcessId", process.pid)
        block.put("InheritedFromUniqueProcessId", process.ppid)
        block.put("CreateTime", self._created(process))
        block.put("Peb", 0 if process.pid == 4 else process.peb)
        block.put_any(("SectionBaseAddress",), process.modules[0].base if process.modules else 0)
        block.put_bytes("ImageFileName", process.name.encode("ascii", "replace")[:15].ljust(15, b"\0"))
        block.put_any(("ObjectTable",), self._write_handle_table(process))
        block.put_any(("Session",), self._session(process.session))
        if block.has("SeAuditProcessCreationInfo.ImageFileName") and process.image_path:
            block.put("SeAuditProcessCreationInfo.ImageFileName", self._write_name(process.image_path))

    def _write_handle_table(self, process: Process) -> int:
        table = Structure(
            self.kernel, self.kernel.layout, "_HANDLE_TABLE", self.kernel.allocate_struct("_HANDLE_TABLE", Pool.PAGED)
        )
        table.put_any(("UniqueProcessId",), process.pid)
        return table.address

    def _session(self, number: int) -> int:
        """Return the address of a session's _MM_SESSION_SPACE, of which only the head is there: its id at +8."""
        if number not in self._sessions:
            address = self._sessions[number] = self.kernel.allocate(0x1000, Pool.PAGED)
            self.kernel.write(address + 8, number.to_bytes(4, "little"))
        return self._sessions[number]

    def _write_name(self, path: str) -> int:
        """Write an OBJECT_NAME_INFORMATION: a UNICODE_STRING, here with its text elsewhere."""
        name = Structure(
            self.kernel,
            self.kernel.layout,
            "_UNICODE_STRING",
            self.kernel.allocate(self.kernel.layout.size("_UNICODE_STRING"), Pool.PAGED),
        )
        buffer, size = self.kernel.unicode(path)
        name.put_all(Length=size, MaximumLength=size + 2, Buffer=buffer)
        return name.address

    def _write_threads(self, block: Structure, process: Process) -> None:
        layout, created = self.kernel.layout, self._created(process)
        threads = [write_thread(self.kernel, block, process.pid, thread, created) for thread in process.threads]
        block.put("ActiveThreads", len(threads))
        link(self.kernel, layout, [block.at("ThreadListHead"), *(t.at("ThreadListEntry") for t in threads)])
        link(self.kernel, layout, [block.at("Pcb.ThreadListHead"), *(t.at("Tcb.ThreadListEntry") for t in threads)])

    def _write_user_structures(self, process: Process, user: UserSpace) -> None:
        layout = self.kernel.layout
        for thread in process.threads:
            write_teb(
                user,
                layout,
                thread.teb,
                peb=process.peb,
                ids=(process.pid, thread.tid),
                stack=(thread.stack_base, thread.stack_limit),
                residency=process.teb_residency,
            )
        load_time, processors = self._created(process), self.machine.processors
        write_peb(
            user,
            layout,
            self.version,
            process,
            process.peb,
            process.modules,
            at=process.loader_base,
            load_time=load_time,
            processors=processors,
        )
        if process.modules32 is not None:
            self._write_user_structures32(process, user, load_time)

    def _write_user_structures32(self, process: Process, user: UserSpace, load_time: int) -> None:
        layout = self.wow64_layout
        if layout is None:
            message = f"{process.name}: WoW64 on a system that is not 64-bit"
            raise ValueError(message)
        peb32 = peb32_address(process)
        for thread in process.threads:
            teb32 = teb32_address(thread.teb, thread.teb32)
            if user.region_at(teb32) is None:
                write_teb(
                    user,
                    layout,
                    teb32,
                    peb=peb32,
                    ids=(process.pid, thread.tid),
                    stack=(thread.stack32_base, thread.stack32_limit),
                    residency=process.teb_residency,
                )
            user.write(thread.teb, teb32.to_bytes(8, "little"))  # NtTib.ExceptionList of a 64-bit TEB
        write_peb(
            user,
            layout,
            self.version,
            process,
            peb32,
            process.modules32 or [],
            load_time=load_time,
            processors=self.machine.processors,
        )

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
    """Return where a process's 32-bit PEB lies: on the page behind the 64-bit one, when the case doesn't say."""
    return process.peb + 0x1000 if process.peb32 is None else process.peb32


def teb32_address(teb: int, teb32: int | None) -> int:
    """Return where a thread's 32-bit TEB lies: right behind the 64-bit one, when the case doesn't say."""
    return teb + _TEB32_AFTER if teb32 is None else teb32
