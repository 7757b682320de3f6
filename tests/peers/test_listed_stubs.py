# SPDX-License-Identifier: Apache-2.0
"""Entries for stubs after .pdata: found by the section, unknown to the exception directory."""

from __future__ import annotations

import struct

import pefile

from tests.forge.cases.service_x64 import PID, build
from tests.forge.cases.windows_x64 import NTDLL
from tests.forge.describe import Machine
from tests.peers.listed_stubs import with_listed_stubs


def ntdll(machine: Machine) -> bytes:
    process = next(process for process in machine.processes if process.pid == PID)
    return bytes(next(region.data for region in process.regions if region.base == NTDLL))


def entries(image: bytes, rva: int, size: int) -> list[tuple[int, int, int]]:
    return [struct.unpack_from("<III", image, at) for at in range(rva, rva + size - 11, 12)]


def test_the_section_covers_every_stub_that_a_thread_waits_in():
    machine = build().machine
    process = next(process for process in machine.processes if process.pid == PID)
    waits = {thread.registers["rip"] - NTDLL for thread in process.threads}
    before, after = ntdll(machine), ntdll(with_listed_stubs(machine))
    old, new = pefile.PE(data=before, fast_load=True), pefile.PE(data=after, fast_load=True)
    section, grown = (next(s for s in pe.sections if s.Name.startswith(b".pdata")) for pe in (old, new))
    listed = entries(after, grown.VirtualAddress, grown.Misc_VirtualSize)
    assert listed[: -len(waits)] == entries(before, section.VirtualAddress, section.Misc_VirtualSize)
    added = listed[-len(waits) :]
    assert len(waits) == 4
    for begin, end, unwind in added:
        assert len([rva for rva in waits if begin <= rva < end]) == 1
        # Version 1, no prologue, no codes, no frame register; the code from there: syscall, ret
        assert after[unwind : unwind + 4] == b"\x01\0\0\0"
        assert after[begin:end] == b"\x0f\x05\xc3"
    assert old.OPTIONAL_HEADER.DATA_DIRECTORY[3].dump_dict() == new.OPTIONAL_HEADER.DATA_DIRECTORY[3].dump_dict()


def test_what_is_listed_already_stays_as_it_is():
    once = with_listed_stubs(build().machine)
    assert ntdll(with_listed_stubs(once)) == ntdll(once)
