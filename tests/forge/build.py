# SPDX-License-Identifier: Apache-2.0
"""From the description of a machine to a dump that Volatility opens: `build(machine, out_dir)`.

What Volatility's automagic needs is there at the places where it looks: the kernel's page tables with their
self-reference, KUSER_SHARED_DATA, the debugger's data block (its tag comes first in physical memory, the kernel being
written first), and the kernel's header with the RSDS record that names the ISF.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.forge import fuller_kernel, kernel_data
from tests.forge.compressed_store import StoreWriter
from tests.forge.describe import Machine, Paging, Process
from tests.forge.dump_files import DumpFacts, DumpKind, write_dump, write_page_file
from tests.forge.kernel_image import KernelImage, build_kernel
from tests.forge.kernel_memory import KernelMemory, Pool, pool_starts
from tests.forge.kernel_processes import SYSTEM, ProcessWriter
from tests.forge.kernel_waits import write_waits
from tests.forge.layouts import Layout, Version, carried, load
from tests.forge.paging import MODES, AddressSpace
from tests.forge.physical import PAGE, PhysicalMemory
from tests.forge.pte import PteFormat
from tests.forge.structures import Structure, link
from tests.forge.user_space import SectionCache

__all__ = ["BuiltDump", "DumpKind", "build"]


@dataclass(frozen=True, slots=True)
class BuiltDump:
    """What was built: the dump, and the directory to give to Volatility with `-s`."""

    dump: Path
    isf_dir: Path
    version: Version
    """The Windows version that the dump shows: that of the layout, where the case's is of another one."""
    page_file: Path | None = None
    """Page file 0, if a page is in it."""


def build(
    machine: Machine, out_dir: Path, *, isf: Path | None = None, dump: DumpKind = DumpKind.FULL, fuller: bool = False
) -> BuiltDump:
    """Write MEMORY.DMP and isf/ into a directory.

    `isf` gives the kernel's layouts (and its symbols, if it has them); by default a carried one that suits the machine.
    `fuller` adds what MemProcFS needs (x64 only; `tests.forge.fuller_kernel`).
    Raises ValueError for a machine that cannot be: overlapping regions, a 32-bit layout for 64-bit paging.
    """
    if fuller:
        machine = fuller_kernel.with_processes(machine)
    layout = load(carried(machine.paging, machine.version) if isf is None else isf)
    if layout.is_64bit is not machine.paging.is_64bit:
        message = f"{layout.source} is no layout for paging {machine.paging.value}"
        raise ValueError(message)
    version = layout.version(machine.version)
    built = BuiltDump(out_dir / "MEMORY.DMP", out_dir / "isf", version)
    built.isf_dir.mkdir(parents=True, exist_ok=True)
    physical = PhysicalMemory()
    _reserve_roots(machine, physical)
    space = AddressSpace(machine.paging, physical, MODES[machine.paging].kernel_root)
    kernel = KernelMemory(space, layout, pool_starts(machine.paging, version))
    kernel.reserve(_given_addresses(machine, layout))
    image = build_kernel(machine, layout, kernel, version, built.isf_dir)
    if fuller:
        image = fuller_kernel.extend_image(kernel, image)
    page_file = _write_machine(machine, version, kernel, image, fuller=fuller)
    if fuller:
        fuller_kernel.pad(physical)
    if page_file:
        built = replace(built, page_file=out_dir / "pagefile.sys")
        write_page_file(out_dir / "pagefile.sys", page_file)
    write_dump(built.dump, dump, physical, _facts(machine, version, layout, image, space))
    return built


def _reserve_roots(machine: Machine, physical: PhysicalMemory) -> None:
    """Take the pages of top tables whose place the case gives."""
    for process in machine.processes:
        if process.directory_base is None:
            continue
        if process.directory_base % (32 if machine.paging is Paging.PAE else PAGE):
            message = f"{process.name}: no top table can be at {process.directory_base:#x}"
            raise ValueError(message)
        number = process.directory_base // PAGE
        physical.claim(number)
        if machine.paging is Paging.PAE and machine.pads_pointer_tables:
            physical.claim(number + 1)


def _given_addresses(machine: Machine, layout: Layout) -> Iterator[tuple[int, int]]:
    """Yield the ranges that the case has taken in the kernel's half."""
    for process in machine.processes:
        if process.address is not None:
            yield process.address - 0x80, process.address + layout.size("_EPROCESS")
        for thread in process.threads:
            if thread.address is not None:
                yield thread.address - 0x80, thread.address + layout.size("_ETHREAD")
            if thread.kernel_stack_base is not None:
                yield (thread.kernel_stack_limit or thread.kernel_stack_base - 0x6000), thread.kernel_stack_base
            for at, data in thread.kernel_stack.items():
                yield at, at + len(data)
            for item in thread.wait_objects:
                if item.address is not None:
                    yield item.address - 0x40, item.address + 0x40


def _write_machine(
    machine: Machine, version: Version, kernel: KernelMemory, image: KernelImage, *, fuller: bool
) -> dict[int, bytes]:
    """Write everything after the kernel's image into physical memory; return the contents of the page file."""
    kernel_data.write_debugger_data(kernel, machine, image, version)
    processors = kernel_data.write_processors(kernel, machine)
    kernel_data.write_variables(kernel, machine, image, version, processors)
    kernel_data.write_modules(kernel, image)
    kernel_data.write_invalid_pte_mask(kernel, machine, image)
    ptes = PteFormat(
        machine.paging,
        kernel.layout,
        kernel.starts[Pool.PAGED],
        kernel.starts[Pool.NONPAGED],
        machine.invalid_pte_mask,
    )
    sections = SectionCache(kernel, ptes)
    writer = ProcessWriter(
        machine,
        version,
        kernel,
        sections,
        kernel_data.write_shared_data(kernel, machine, version),
        load(carried(Paging.PAE, version)) if machine.paging.is_64bit else None,
    )
    processes = list(machine.processes)
    if not any(process.pid == SYSTEM for process in processes):
        processes.insert(0, Process(SYSTEM, "System", ppid=0, create_seconds=0))
    blocks: list[Structure] = []
    spaces: list[AddressSpace] = []

    def write(process: Process) -> Structure:
        space = kernel.space
        if process.pid != SYSTEM:
            space = AddressSpace(machine.paging, kernel.physical, process.directory_base)
            spaces.append(space)
        blocks.append(writer.write(process, space))
        return blocks[-1]

    for process in processes:
        write(process)
    if sections.store:
        StoreWriter(kernel, image, version).write(sections.store, write)
    kernel_data.write_current_threads(kernel, processors, writer.running)
    write_waits(kernel, image, processes, writer.blocks)
    sections.finish()
    _link_processes(kernel, image, blocks)
    if fuller:
        fuller_kernel.complete_pages(kernel, writer.blocks.values())
    kernel.space.close_kernel()
    for space in spaces:
        space.adopt(kernel.space)
    if machine.paging is Paging.PAE and machine.pads_pointer_tables:
        for space in spaces:
            kernel.physical.pages.setdefault(space.root // PAGE + 1, b"")
    return sections.page_file


def _link_processes(kernel: KernelMemory, image: KernelImage, blocks: list[Structure]) -> None:
    head = image.address("PsActiveProcessHead")
    if head is None:
        message = "the ISF has no PsActiveProcessHead"
        raise ValueError(message)
    link(kernel, kernel.layout, [head, *(block.at("ActiveProcessLinks") for block in blocks)])
    initial = image.address("PsInitialSystemProcess")
    if initial is not None:
        kernel.write_pointer(initial, blocks[0].address)


def _facts(machine: Machine, version: Version, layout: Layout, image: KernelImage, space: AddressSpace) -> DumpFacts:
    return DumpFacts(
        is_64bit=layout.is_64bit,
        is_pae=machine.paging is Paging.PAE,
        build=version[2],
        directory_base=space.root,
        debugger_data=image.address("KdDebuggerDataBlock") or 0,
        module_list=image.address("PsLoadedModuleList") or 0,
        process_list=image.address("PsActiveProcessHead") or 0,
        processors=machine.processors,
        bug_check=machine.bug_check,
        system_time=machine.system_time,
        up_time=kernel_data.ticks_to_100ns(machine, machine.tick_count),
    )
