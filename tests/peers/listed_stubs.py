# SPDX-License-Identifier: Apache-2.0
"""Gives the stub that a thread waits in an entry that MemProcFS finds, so that its walk can begin there.

It takes the thread's rsp only for a first frame whose function has unwind data without codes, as the stubs of system
calls in its ntdll have; those of Wine's ntdll are leaf functions without an entry. An entry is put after .pdata, into
what is left of the section's last page, and the section grows by it. MemProcFS goes by the section; the exception
directory, by which everyone else goes, stays as it was.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import pefile

from tests.forge.describe import Machine, Process, Region

PAGE = 0x1000
_ENTRY = 12
_NO_CODES = bytes((1, 0, 0, 0))
_SYSCALL = b"\x0f\x05"


def with_listed_stubs(machine: Machine) -> Machine:
    """Return the machine with the stubs listed in which its x64 threads wait."""
    return replace(machine, processes=[_listed(process) for process in machine.processes])


def _listed(process: Process) -> Process:
    waits = {thread.registers["rip"] for thread in process.threads if "rip" in thread.registers}
    regions = list(process.regions)
    for module in process.modules:
        inside = sorted(ip for ip in waits if module.base <= ip < module.base + module.size)
        if inside:
            regions = _with_entries(regions, module.base, module.size, [ip - module.base for ip in inside])
    return replace(process, regions=regions)


def _with_entries(regions: list[Region], base: int, size: int, places: list[int]) -> list[Region]:
    """Return the regions with entries for the functions at these RVAs of the image at `base`."""
    image = bytearray(size)
    for region in regions:
        if base <= region.base < base + size:
            image[region.base - base : region.base - base + len(region.data)] = region.data
    parsed = pefile.PE(data=bytes(image), fast_load=True)
    section = next(section for section in parsed.sections if section.Name.rstrip(b"\0") == b".pdata")
    table = image[section.VirtualAddress : section.VirtualAddress + section.Misc_VirtualSize]
    ranges = [struct.unpack_from("<II", table, at) for at in range(0, len(table) - _ENTRY + 1, _ENTRY)]
    places = [place for place in places if not any(begin <= place < end for begin, end in ranges)]
    if not places:
        return regions
    at = section.VirtualAddress + -(-len(table) // _ENTRY) * _ENTRY
    end = at + _ENTRY * len(places)
    if (end + len(_NO_CODES) - 1) // PAGE != (at - 1) // PAGE or any(image[at : end + len(_NO_CODES)]):
        return regions
    # Of the stub, as much as is known: `syscall` before the address, `ret` at it.
    entries = b"".join(struct.pack("<III", place - len(_SYSCALL), place + 1, end) for place in places)
    size_at = section.get_file_offset() + 8
    edits = {at: entries + _NO_CODES, size_at: struct.pack("<I", end - section.VirtualAddress)}
    return [_edited(region, base, edits) for region in regions]


def _edited(region: Region, base: int, edits: dict[int, bytes]) -> Region:
    """Return the region with those edits that fall into it."""
    data = None
    for rva, new in edits.items():
        at = base + rva - region.base
        if at >= 0 and at + len(new) <= len(region.data):
            data = bytearray(region.data) if data is None else data
            data[at : at + len(new)] = new
    return region if data is None else replace(region, data=bytes(data))
