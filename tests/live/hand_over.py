# SPDX-License-Identifier: Apache-2.0
"""Describes a captured process as a machine for the forge, and has the dump written."""

from __future__ import annotations

from pathlib import Path

from tests.forge.build import build
from tests.forge.describe import (
    LoadedModule,
    Machine,
    Paging,
    Process,
    Protection,
    Region,
    Residency,
    Thread,
)
from tests.live.capture import PAGE, Capture, CapturedModule, CapturedRegion, CapturedThread
from tests.peers.listed_stubs import with_listed_stubs

X86_VERSION = (5, 2, 3790)
X64_VERSION = (10, 0, 19041)
TICKS = 9000
X64_TRAP_REGISTERS = ("rip", "rsp", "rbp", "rbx", "rsi", "rdi", "eflags", "cs", "ss")


def hand_over(capture: Capture, process_name: str, out: Path) -> Path:
    """Write MEMORY.DMP and isf/ into `out`, those of x64 so that MemProcFS walks them too; return its path."""
    machine = describe(capture, process_name)
    if capture.arch == "x64":
        return build(with_listed_stubs(machine), out, fuller=True).dump
    return build(machine, out).dump


def describe(capture: Capture, process_name: str) -> Machine:
    """Describe the machine on which the captured process runs alone."""
    is_x86 = capture.arch == "x86"
    process = Process(
        pid=capture.pid,
        name=process_name,
        peb=capture.peb,
        modules=[_module(module) for module in capture.modules],
        modules32=[_module(module) for module in capture.modules32] if capture.peb32 else None,
        peb32=capture.peb32,
        regions=[_region(region) for region in capture.regions],
        threads=[_thread(thread, index, is_x86=is_x86) for index, thread in enumerate(capture.threads)],
        image_path=capture.modules[0].path,
        writes_loader_data=False,
    )
    return Machine(
        paging=Paging.PAE if is_x86 else Paging.X64,
        version=X86_VERSION if is_x86 else X64_VERSION,
        processes=[process],
        tick_count=TICKS,
    )


def _module(module: CapturedModule) -> LoadedModule:
    return LoadedModule(module.name, module.path, module.base, module.size, module.entry, module.timestamp)


def _region(region: CapturedRegion) -> Region:
    residency = dict.fromkeys(region.untouched, Residency.DEMAND_ZERO)
    if region.is_section:
        # Such pages can be reached through the section's prototype PTEs alone: .NET keeps JIT code so from 7 on.
        for index in range(-(-len(region.data) // PAGE)):
            residency.setdefault(index, Residency.PROTOTYPE)
    if region.image is None:
        protection = Protection.EXECUTE_READ_WRITE if region.is_code else Protection.READ_WRITE
        return Region(region.base, region.data, protection, residency=residency)
    return Region(
        region.base,
        region.data,
        Protection.EXECUTE_WRITE_COPY,
        file=region.image.path[2:],
        is_image=True,
        residency=residency,
        reserve=region.reserve,
    )


def _thread(thread: CapturedThread, index: int, *, is_x86: bool) -> Thread:
    registers = thread.registers
    if not is_x86:
        # What a 64-bit kernel's trap frame of a system call holds; r12 to r15 stay on the kernel's stack.
        registers = {name: registers[name] for name in X64_TRAP_REGISTERS}
    return Thread(
        tid=thread.tid,
        teb=thread.teb,
        stack_base=thread.stack_base,
        stack_limit=thread.stack_limit & -PAGE,
        registers=registers,
        wait_ticks=TICKS - 1000 + 10 * index,
        teb32=thread.teb32,
    )
