# SPDX-License-Identifier: Apache-2.0
"""What the kernel has once: shared user data, debugger data, processors, module list, variables.

KDDEBUGGER_DATA64 and its offsets: wdbgexts.h of the Windows SDK.
"""

from __future__ import annotations

import struct

from tests.forge.describe import Machine, Paging
from tests.forge.kernel_image import KernelImage
from tests.forge.kernel_memory import KernelMemory, Pool
from tests.forge.layouts import Version
from tests.forge.physical import PAGE
from tests.forge.pte import PROTECT_TO_VALUE
from tests.forge.structures import Structure, link

_SHARED_DATA = {True: 0xFFFFF780_00000000, False: 0xFFDF0000}
_PROCESSOR_CONTROL = {True: 0xFFFFF800_00B00000, False: 0xFFDFF000}
"""Where the first processor's KPCR is."""
_KDBG_SIZE = {(5, 1): 0x290, (5, 2): 0x318}
_USER_END = {True: 0x7FFFFFF0000, False: 0x7FFF0000}
_WORKSTATION, _SERVER = 1, 3
_SERVER_BUILDS = {3790}


def ticks_to_100ns(machine: Machine, ticks: int) -> int:
    """Return the length of some clock ticks in units of 100 ns."""
    return ticks * machine.tick_multiplier * 10_000 >> 24


def boot_time(machine: Machine) -> int:
    """Return when the system came up, as a FILETIME."""
    return machine.system_time - ticks_to_100ns(machine, machine.tick_count)


def write_shared_data(kernel: KernelMemory, machine: Machine, version: Version) -> int:
    """Write KUSER_SHARED_DATA; return its frame, which every process maps too."""
    address = _SHARED_DATA[kernel.layout.is_64bit]
    frame, page = kernel.physical.allocate()
    kernel.map_known(address, frame, page)
    data = Structure(kernel, kernel.layout, "_KUSER_SHARED_DATA", address)
    data.put_all(
        TickCountMultiplier=machine.tick_multiplier,
        NtMajorVersion=version[0],
        NtMinorVersion=version[1],
        NtBuildNumber=version[2],
        NtProductType=_SERVER if version[2] in _SERVER_BUILDS else _WORKSTATION,
        ProductTypeIsValid=1,
        ActiveProcessorCount=machine.processors,
        ImageNumberLow=0x8664 if kernel.layout.is_64bit else 0x14C,
        ImageNumberHigh=0x8664 if kernel.layout.is_64bit else 0x14C,
    )
    data.put_any(("TickCountLowDeprecated", "TickCountLow"), machine.tick_count)
    put_time(data, "TickCount", machine.tick_count)
    put_time(data, "InterruptTime", ticks_to_100ns(machine, machine.tick_count))
    put_time(data, "SystemTime", machine.system_time)
    data.put_bytes("NtSystemRoot", "C:\\WINDOWS\0".encode("utf-16-le"))
    return frame


def put_time(data: Structure, path: str, value: int) -> None:
    """Write a KSYSTEM_TIME: low part, and the high part twice."""
    if data.has(f"{path}.LowPart"):
        data.put(f"{path}.LowPart", value)
        data.put(f"{path}.High1Time", value >> 32)
        data.put(f"{path}.High2Time", value >> 32)


def write_variables(
    kernel: KernelMemory, machine: Machine, image: KernelImage, version: Version, processors: list[int]
) -> None:
    """Write the kernel's variables, as far as it has them."""

    def put(symbol: str, data: bytes) -> None:
        address = image.address(symbol)
        if address is not None:
            kernel.write(address, data)

    def put_pointer(symbol: str, value: int) -> None:
        put(symbol, value.to_bytes(kernel.layout.pointer_size, "little"))

    is_64bit = kernel.layout.is_64bit
    put("KeNumberProcessors", machine.processors.to_bytes(1 if is_64bit else 4, "little"))
    ticks = machine.tick_count
    put("KeTickCount", struct.pack("<III", ticks & 0xFFFFFFFF, ticks >> 32, ticks >> 32))
    put("MmProtectToValue", struct.pack("<32I", *PROTECT_TO_VALUE))
    put("NtBuildNumber", struct.pack("<I", 0xF0000000 | version[2]))
    put("NtBuildLab", f"{version[2]}.forge".encode() + b"\0")
    put("CmNtCSDVersion", struct.pack("<I", 0x200 if version < (6, 0, 0) else 0))
    put_pointer("MmHighestUserAddress", _USER_END[is_64bit] - 1)
    put_pointer("MmUserProbeAddress", _USER_END[is_64bit])
    put_pointer("MmSystemRangeStart", 0xFFFF8000_00000000 if is_64bit else 0x80000000)
    put_pointer("MmPagedPoolStart", kernel.starts[Pool.PAGED])
    put_pointer("MmSubsectionBase", kernel.starts[Pool.NONPAGED])
    size = kernel.layout.pointer_size
    put("KiProcessorBlock", b"".join(prcb.to_bytes(size, "little") for prcb in processors))


def write_debugger_data(kernel: KernelMemory, machine: Machine, image: KernelImage, version: Version) -> None:
    """Write KdVersionBlock and KdDebuggerDataBlock, by which debuggers find everything else."""
    block, data = image.address("KdVersionBlock"), image.address("KdDebuggerDataBlock")
    modules = image.address("PsLoadedModuleList")
    if data is not None:
        size = _KDBG_SIZE.get(version[:2], 0x340)
        values = bytearray(size)
        for offset, value in _debugger_values(kernel, image).items():
            if offset + 8 <= size:
                struct.pack_into("<Q", values, offset, _extend(kernel, value))
        struct.pack_into("<QQ4sI", values, 0, _extend(kernel, data), _extend(kernel, data), b"KDBG", size)
        kernel.write(data, bytes(values))
    if block is not None:
        kd = Structure(kernel, kernel.layout, "_DBGKD_GET_VERSION64", block)
        kd.put_all(
            MajorVersion=0xF,
            MinorVersion=version[2],
            ProtocolVersion=6,
            Flags=2 if machine.paging is Paging.X86 else 6,
            MachineType=0x8664 if kernel.layout.is_64bit else 0x14C,
            KernBase=_extend(kernel, image.base),
            PsLoadedModuleList=_extend(kernel, modules or 0),
            DebuggerDataList=_extend(kernel, data or 0),
        )


def _extend(kernel: KernelMemory, address: int) -> int:
    """Return a kernel address as the debugger's 64-bit structures hold it: sign-extended."""
    return address | 0xFFFFFFFF_00000000 if not kernel.layout.is_64bit and address >> 31 else address


def _debugger_values(kernel: KernelMemory, image: KernelImage) -> dict[int, int]:
    """Return the KDDEBUGGER_DATA64 members that are known, by offset."""
    names = {
        0x48: "PsLoadedModuleList",
        0x50: "PsActiveProcessHead",
        0x58: "PspCidTable",
        0xC0: "MmPfnDatabase",
        0x1C8: "MmHighestUserAddress",
        0x1D0: "MmSystemRangeStart",
        0x1D8: "MmUserProbeAddress",
        0x120: "MmPagedPoolStart",
        0x208: "NtBuildLab",
        0x218: "KiProcessorBlock",
        0x268: "CmNtCSDVersion",
    }
    values = {offset: image.address(name) or 0 for offset, name in names.items()}
    numbers = {
        0x18: image.base,
        0xD8: kernel.starts[Pool.NONPAGED],
        0x138: PAGE,
    }
    layout = kernel.layout
    offsets = {
        0x29A: ("_KTHREAD", "Teb"),
        0x29C: ("_KTHREAD", "KernelStack"),
        0x29E: ("_KTHREAD", "InitialStack"),
        0x2A0: ("_KTHREAD", "ApcState.Process"),
        0x2A2: ("_KTHREAD", "State"),
        0x2AA: ("_EPROCESS", "Peb"),
        0x2AC: ("_EPROCESS", "InheritedFromUniqueProcessId"),
        0x2AE: ("_EPROCESS", "Pcb.DirectoryTableBase"),
    }
    short: dict[int, int] = {offset: layout.offset(*member) for offset, member in offsets.items()}
    short[0x2A8] = layout.size("_EPROCESS")
    short[0x2C0] = layout.size("_ETHREAD")
    for offset, value in short.items():
        word = offset // 8 * 8
        numbers[word] = numbers.get(word, 0) | value << 8 * (offset - word)
    return values | numbers


def write_processors(kernel: KernelMemory, machine: Machine) -> list[int]:
    """Write the processors' control regions; return the addresses of their KPRCBs."""
    layout = kernel.layout
    name = "PrcbData" if layout.has("_KPCR", "PrcbData") else "Prcb"
    prcbs = []
    for number in range(machine.processors):
        if number == 0:
            address = _PROCESSOR_CONTROL[layout.is_64bit]
        else:
            address = kernel.allocate(layout.size("_KPCR"), align=PAGE)
        control = Structure(kernel, layout, "_KPCR", address)
        prcb = control.at(name)
        control.put_any(("CurrentPrcb", "Prcb"), prcb)
        control.put_any(("Self", "SelfPcr"), address)
        control.put_any(("Number",), number)
        Structure(kernel, layout, "_KPRCB", prcb).put("Number", number)
        prcbs.append(prcb)
    return prcbs


def write_current_threads(kernel: KernelMemory, processors: list[int], threads: list[int]) -> None:
    """Give each processor one of the threads that run."""
    for prcb, thread in zip(processors, threads, strict=False):
        Structure(kernel, kernel.layout, "_KPRCB", prcb).put("CurrentThread", thread)


def write_invalid_pte_mask(kernel: KernelMemory, machine: Machine, image: KernelImage) -> None:
    """Write MiState.Hardware.InvalidPteMask, where this kernel has it; raise ValueError for a mask that it has not."""
    if not machine.invalid_pte_mask:
        return
    state = image.address("MiState")
    if state is None:
        message = "this kernel has no MiState for a mask of invalid PTEs"
        raise ValueError(message)
    has_type = kernel.layout.has("_MI_SYSTEM_INFORMATION")
    offset = kernel.layout.offset("_MI_SYSTEM_INFORMATION", "Hardware.InvalidPteMask") if has_type else 0
    kernel.write(state + offset, machine.invalid_pte_mask.to_bytes(8, "little"))


def write_modules(kernel: KernelMemory, image: KernelImage) -> None:
    """Write PsLoadedModuleList with the kernel itself."""
    head = image.address("PsLoadedModuleList")
    if head is None:
        return
    layout = kernel.layout
    entry = Structure(kernel, layout, "_LDR_DATA_TABLE_ENTRY", kernel.allocate_struct("_LDR_DATA_TABLE_ENTRY"))
    entry.put_all(DllBase=image.base, SizeOfImage=image.size, TimeDateStamp=image.timestamp, LoadCount=1)
    entry.put_string("FullDllName", *kernel.unicode(f"\\WINDOWS\\system32\\{image.name}"))
    entry.put_string("BaseDllName", *kernel.unicode(image.name))
    link(kernel, layout, [head, entry.at("InLoadOrderLinks")])
