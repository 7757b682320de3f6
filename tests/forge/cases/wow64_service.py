# SPDX-License-Identifier: Apache-2.0
"""Windows 10 x64: a 32-bit service, stuck as the reference case is, seen from both sides of WoW64.

The 32-bit stack is the reference case's; its CONTEXT has WoW64's selectors. The 64-bit side waits in the system call
that wow64cpu made for it, and has on its stack the 64-bit CONTEXT that a fault in 32-bit code leaves there.
"""

from __future__ import annotations

import struct

from tests.forge.cases import Case
from tests.forge.cases import ftp_stack as stuck
from tests.forge.cases.dispatch_x64 import dead, fault
from tests.forge.cases.ftp_images import COM_ERROR_VFTABLE, SYSTEM, Library, add_com_error
from tests.forge.cases.ftp_threads import service_image
from tests.forge.cases.ftp_throw import COM_ERROR, HRESULT
from tests.forge.cases.machine_x64 import SERVICES, VERSION, Site
from tests.forge.cases.threads_x64 import CPP_EXCEPTION, NOW, Threads
from tests.forge.cases.windows_x64 import NTDLL
from tests.forge.chains_x64 import Chain
from tests.forge.chains_x86 import Chain as Chain32
from tests.forge.chains_x86 import Images
from tests.forge.describe import Process, Region
from tests.forge.functions_x64 import Call, Frame, Function
from tests.forge.images import ImageBuilder, pdb_of
from tests.forge.pe_format import AMD64
from tests.forge.records import context_x86, cpu_area
from tests.forge.stacks import Stack
from tests.forge.truth import Truth, TruthFrame, TruthThread

PID, TID = 0x1A2C, 0x1A30
_PEB, _TEB, _TEB32, _CPU_AREA = 0x2F0000, 0x2F4000, 0x2F6000, 0x300000
_CPU_SLOT = 0x1480 + 8
_STACK_BASE, _STACK_SIZE = 0x290000, 0x8000
_WOW64, _WOW64CPU = 0x77100000, 0x77200000
_SELECTORS = {"cs": 0x23, "ss": 0x2B, "ds": 0x2B, "es": 0x2B, "fs": 0x53, "gs": 0x2B}
_WOW64_DIRECTORY = "\\Windows\\SysWOW64"


def build() -> Case:
    """Return the machine and the truth about it."""
    site = Site("wow64-service")
    library = Library()
    add_com_error(library["ftpsrvdata_pg"])
    stack32 = Stack(stuck.STACK_LIMIT, stuck.STACK_BASE)
    chain32, threw = _lay_out(stack32, library)
    process = Process(PID, "iftpsvc.exe", SERVICES, _PEB, create_seconds=50)
    program, _ = service_image(process.name, "\\Program Files (x86)\\Ipswitch\\iFtpSvc")
    native, native_names = _native_images(site)
    process.modules = [program.loaded(b"")]
    for image, data in native:
        process.modules.append(image.loaded(data))
        process.regions.append(image.region(data))
    process.modules32 = []
    for image in (program, *library.images.values()):
        if image.directory == SYSTEM:
            image.directory = _WOW64_DIRECTORY
        data = image.build()
        process.modules32.append(image.loaded(data))
        process.regions.append(image.region(data))
    process.modules[0] = process.modules32[0]
    native_frames = _add_thread(site, process, chain32, native_names)
    process.regions.append(Region(stuck.STACK_LIMIT, stack32.data()))
    site.processes.append(process)
    case = site.case()
    truth = _truth(chain32, threw, Images([program, *library.images.values()]))
    symbols = [image for image in (*library.images.values(), *site.images) if image.has_isf]
    stacks = {f"{PID}:{TID}": native_frames}
    return Case(case.machine, Truth(site.name, "wow64", (truth,), stacks=stacks), symbols)


def _lay_out(stack: Stack, library: Library) -> tuple[Chain32, int]:
    """Lay the reference case's stack out, with the selectors of a 32-bit thread of a 64-bit system."""
    for address, word in stuck.LOCALS.items():
        stack.at(address).d32(word)
    stack.at(stuck.RECORD).d32(*stuck.RECORD_WORDS)
    stack.at(stuck.CONTEXT).raw(context_x86({**stuck.CXR, **_SELECTORS}, 0x1007F))
    stack.at(COM_ERROR).d32(COM_ERROR_VFTABLE, HRESULT, 0, 0)
    return stuck.lay_out(stack, library)


def _native_images(site: Site) -> tuple[list[tuple[ImageBuilder, bytes]], Images]:
    """Return the 64-bit images of a WoW64 process; their functions go to the site's."""
    wow64 = ImageBuilder("wow64.dll", _WOW64, 0x8000, machine=AMD64, pdb=pdb_of("wow64.dll"), has_isf=True)
    cpu = ImageBuilder("wow64cpu.dll", _WOW64CPU, 0x4000, machine=AMD64, pdb=pdb_of("wow64cpu.dll"), has_isf=True)
    service, simulate = _WOW64 + 0x3000, _WOW64CPU + 0x1800
    functions = (
        (wow64, Function("Wow64LdrpInitialize", _WOW64 + 0x2000, Frame(("rbx", "rdi"), 0x38), (
            Call(_WOW64 + 0x2120, simulate),))),
        # mov r12,[TEB]: it keeps the registers of the 32-bit side in the CPU area
        (cpu, Function("BTCpuSimulate", simulate, Frame(("rbx", "rsi", "r12"), 0x50), (
            Call(simulate + 0x60, service),))),
        (wow64, Function("whNtWaitForMultipleObjects", service, Frame(("rbx", "rsi", "rdi"), 0x60), (
            Call(service + 0x90, via=wow64.slot(NTDLL + 0x9D460)),))),
    )  # fmt: skip
    for image, function in functions:
        site.program.functions[function.name] = function.put(image, 0, exported=True)
    ntdll = site.system.images["ntdll"]
    site.images += [wow64, cpu]
    return [(image, image.build()) for image in (ntdll, wow64, cpu)], Images([ntdll, wow64, cpu])


def _add_thread(site: Site, process: Process, chain32: Chain32, names: Images) -> tuple[TruthFrame, ...]:
    """Give the process its thread: the 64-bit stack, both TEBs, the CPU area; return the 64-bit frames."""
    threads = Threads(site.system, site.program, names, site.kernel, 0, 0)
    stack = Stack(_STACK_BASE - _STACK_SIZE, _STACK_BASE)
    chain = Chain(stack, _STACK_BASE - 0x28)
    threads._enter(chain, "RtlUserThreadStart", "Wow64LdrpInitialize", "BTCpuSimulate")
    # What a fault of 32-bit code left: the kernel delivers it to the 64-bit dispatcher first.
    fault(threads, dead(chain, chain.return_slot - 0x1000))
    threads._enter(chain, "whNtWaitForMultipleObjects", "NtWaitForMultipleObjects")
    thread, frames = threads._thread(chain, TID, _TEB, "RtlUserThreadStart", since=6900)
    thread.teb32 = _TEB32
    process.threads.append(thread)
    teb = bytearray(0x2000)
    struct.pack_into("<Q", teb, _CPU_SLOT, _CPU_AREA)
    teb32 = bytearray(0x1000)
    struct.pack_into("<III", teb32, 0, chain32.seh, chain32.stack.base, chain32.stack.limit)
    struct.pack_into("<I", teb32, 0x18, _TEB32)
    registers = {
        **dict.fromkeys(("eax", "ecx", "edx"), 0),
        **chain32.placed[-1].registers,
        **_SELECTORS,
        "eflags": 0x246,
    }
    area = cpu_area(registers, 0x1007F, VERSION)
    process.regions += [
        Region(stack.limit, stack.data()),
        Region(_TEB, bytes(teb)),
        Region(_TEB32, bytes(teb32)),
        Region(_CPU_AREA, area.ljust(0x1000, b"\0")),
    ]
    return frames


def _truth(chain: Chain32, threw: int, images: Images) -> TruthThread:
    user = chain.frames(images)
    return TruthThread(
        pid=PID,
        tid=TID,
        process="iftpsvc.exe",
        arch="wow64",
        code=CPP_EXCEPTION,
        address=stuck.CXR["eip"],
        record=stuck.RECORD,
        context=stuck.CONTEXT,
        registers={**stuck.CXR, **_SELECTORS},
        thrown_at="ftpsrvdata_pg!_com_raise_error+0x32",
        frames=user[-threw:],
        thread_stack=user,
        blockers=("KERNEL32!UnhandledExceptionFilter", "MSVCR71!abort", "mscorwks!CorExitProcess"),
        exception_type=".?AV_com_error@@",
        message="0x80004003",
        wait_ticks=NOW - 6900,
    )
