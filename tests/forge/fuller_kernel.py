# SPDX-License-Identifier: Apache-2.0
"""What MemProcFS needs of an x64 dump beyond what Volatility does, so that both open the same one.

MemProcFS has no symbol file here and finds everything by looking (its vmmwininit.c and vmmwin.c say for what):

- a file of 16 MB, and a top page table with six entries in the kernel's half;
- the kernel by a section called POOLCODE and by its export directory, which names ntoskrnl.exe and leads to
  PsInitialSystemProcess and NtBuildNumber;
- the members of EPROCESS by comparing System with smss.exe, the process after it, in a list of more than ten;
- the other members by the build number, from a table that comes with it;
- the compressed store by a section called CACHEALI, in whose first page SmGlobals is.

It reads structures as a whole, so that all of their pages have to be there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from itertools import count

from tests.forge.compressed_store import SM_GLOBALS
from tests.forge.describe import Machine, Process
from tests.forge.kernel_image import KernelImage
from tests.forge.kernel_memory import KernelMemory
from tests.forge.pe_format import export_directory, padded
from tests.forge.physical import PAGE, PhysicalMemory
from tests.forge.structures import Structure

_SMALLEST_FILE = 16 << 20
_FURTHER_READ = 0x80
"""How far after an EPROCESS or ETHREAD it reads."""
_REGIONS = (0xFFFF9A80_00000000, 0xFFFFA300_00000000, 0xFFFFB480_00000000, 0xFFFFC780_00000000, 0xFFFFDC00_00000000)
"""Addresses in further regions of the kernel's half, each with a top-level entry of its own."""
_CODE, _READ_ONLY, _DATA = 0x68000020, 0x40000040, 0xC8000040
_SYSTEM32 = "\\Device\\HarddiskVolume3\\Windows\\System32\\"
_PEB, _PEB_STEP = 0x7A_10000000, 0x10_00000000
_SYSTEM, _SMSS, _WININIT, _SERVICES = 4, 0x158, 0x23C, 0x2D4
_PROCESSES = (
    ("smss.exe", _SMSS, _SYSTEM),
    ("csrss.exe", 0x1E8, 0x1E0),
    ("wininit.exe", _WININIT, 0x1E0),
    ("csrss.exe", 0x248, 0x234),
    ("winlogon.exe", 0x290, 0x234),
    ("lsass.exe", 0x2E8, _WININIT),
    ("svchost.exe", 0x364, _SERVICES),
    ("fontdrvhost.ex", 0x37C, _WININIT),
    ("svchost.exe", 0x3C8, _SERVICES),
    ("svchost.exe", 0x41C, _SERVICES),
    ("dwm.exe", 0x488, 0x290),
)
"""Name, id and parent of processes that every system has; the id is the next free one where the case has taken it."""


def with_processes(machine: Machine) -> Machine:
    """Return the machine with the system's own processes, smss.exe first, ahead of the case's."""
    if not machine.paging.is_64bit:
        message = "there is a fuller kernel for x64 only"
        raise ValueError(message)
    system = [process for process in machine.processes if process.pid == _SYSTEM]
    others = [process for process in machine.processes if process.pid != _SYSTEM]
    taken = {id_ for process in machine.processes for id_ in (process.pid, *(thread.tid for thread in process.threads))}
    added = []
    for index, (name, wanted, parent) in enumerate(_PROCESSES):
        pid = next(pid for pid in count(wanted, 4) if pid not in taken)
        taken.add(pid)
        path = _SYSTEM32 + name
        added.append(Process(pid, name, parent, _PEB + _PEB_STEP * index, image_path=path, create_seconds=2 + index))
    return replace(machine, processes=[*system, *added, *others])


def extend_image(kernel: KernelMemory, image: KernelImage) -> KernelImage:
    """Add the sections and the export directory to the kernel's image; return the image as it then is."""
    code, edata = image.size, image.size + PAGE
    exports = {name: image.base + image.symbols[name] for name in ("NtBuildNumber", "PsInitialSystemProcess")}
    table = export_directory(image.name, exports, image.base, edata)
    kernel.write(image.base + code, b"\xcc" * PAGE)
    kernel.write(image.base + edata, padded(table))
    nt_headers = image.base + int.from_bytes(kernel.read(image.base + 0x3C, 4), "little")
    file_header, optional = nt_headers + 4, nt_headers + 24
    sections, optional_size = (int.from_bytes(kernel.read(file_header + at, 2), "little") for at in (2, 16))
    added = [(b"POOLCODE", code, PAGE, _CODE), (b".edata", edata, len(table), _READ_ONLY)]
    if SM_GLOBALS in image.symbols:
        added.append((b"CACHEALI", image.symbols[SM_GLOBALS] // PAGE * PAGE, PAGE, _DATA))
    headers = b"".join(
        struct.pack("<8sIIIIIIHHI", name, size, rva, PAGE, rva, 0, 0, 0, 0, flags) for name, rva, size, flags in added
    )
    at = optional + optional_size + 40 * sections
    if any(kernel.read(at, len(headers))):
        message = "the kernel image's headers have no room for more sections"
        raise ValueError(message)
    kernel.write(at, headers)
    kernel.write(file_header + 2, struct.pack("<H", sections + len(added)))
    kernel.write(optional + 56, struct.pack("<I", edata + PAGE))
    kernel.write(optional + 112, struct.pack("<II", edata, len(table)))
    return replace(image, size=edata + PAGE)


def complete_pages(kernel: KernelMemory, blocks: Iterable[Structure]) -> None:
    """Make sure that EPROCESSes and ETHREADs have all their pages, and the kernel's half its regions."""
    for block in blocks:
        end = block.address + kernel.layout.size(block.name) + _FURTHER_READ
        for address in range(block.address // PAGE * PAGE, end, PAGE):
            kernel.page(address)
    for address in _REGIONS:
        kernel.page(address)


def pad(physical: PhysicalMemory) -> None:
    """Fill physical memory up to the smallest file that is taken, with pages of zeros."""
    for _ in range(_SMALLEST_FILE // PAGE - len(physical.pages)):
        physical.add(b"")
