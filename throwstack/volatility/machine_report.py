# SPDX-License-Identifier: Apache-2.0
"""Makes the report on the machine: its Windows version, its time, and its bug check.

The version is in KUSER_SHARED_DATA, a page that every process maps. The build number is there since Windows 10; before
that it is in the kernel's variable NtBuildNumber (the high bits of which say checked or free) and in the header of a
crash dump. The service pack is in the kernel's variable CmNtCSDVersion: 0x200 is Service Pack 2.
"""

from __future__ import annotations

import logging

from throwstack.core.filetime import time_of
from throwstack.core.memory import MemoryUnreadable
from throwstack.crashdump.header import DumpHeader
from throwstack.pages.page_tables import PagingMode
from throwstack.report.bug_checks import bug_check_name
from throwstack.report.dump_report import BugCheck, MachineReport
from throwstack.report.values import Hexadecimal
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine

log = logging.getLogger(__name__)

_WORKSTATION = 1
_CLIENTS = {(5, 1): "Windows XP", (5, 2): "Windows XP", (6, 0): "Windows Vista", (6, 1): "Windows 7"}
_CLIENTS |= {(6, 2): "Windows 8", (6, 3): "Windows 8.1", (10, 0): "Windows 10"}
_SERVERS = {(5, 2): "Windows Server 2003", (6, 0): "Windows Server 2008", (6, 1): "Windows Server 2008 R2"}
_SERVERS |= {(6, 2): "Windows Server 2012", (6, 3): "Windows Server 2012 R2", (10, 0): "Windows Server 2016"}
_LATER_CLIENT = 22000
"""The first build number of Windows 11. Its version number is 10.0, as that of Windows 10."""
_LATER_SERVERS = ((26100, "Windows Server 2025"), (20348, "Windows Server 2022"), (17763, "Windows Server 2019"))
_TICKS_A_SECOND = 10_000_000
_BUG_CHECK_WORDS = 5


def machine_report(machine: Machine, header: DumpHeader | None) -> MachineReport:
    """Return what the image, and the header if it is a crash dump, contain about the machine.

    Facts that cannot be read are absent. `header` is None if the image is not a crash dump.
    """
    with guarded(lambda reason: log.warning("what the image says of the machine cannot be read: %s", reason)):
        return _made(machine, header)
    return MachineReport("Windows", "x64" if machine.is_64bit else "x86")


def _made(machine: Machine, header: DumpHeader | None) -> MachineReport:
    version = _shared(machine, "NtMajorVersion"), _shared(machine, "NtMinorVersion")
    build = _build(machine, header)
    clock = machine.clock
    system_time = (0 if clock is None else clock.system_time) or (None if header is None else header.system_time)
    up_time = (0 if clock is None else clock.interrupt_time) or (None if header is None else header.up_time) or 0
    return MachineReport(
        system=_system(version, _shared(machine, "NtProductType"), build),
        architecture="x64" if machine.is_64bit else "x86",
        build=build,
        service_pack=_service_pack(machine),
        processors=_processors(machine, header),
        time=time_of(system_time) if system_time else None,
        uptime_seconds=up_time / _TICKS_A_SECOND if up_time else None,
        bug_check=_bug_check(machine, header),
        has_pae=None if machine.is_64bit else machine.mode is PagingMode.PAE,
    )


def _system(version: tuple[int | None, int | None], product: int | None, build: int | None) -> str:
    if None in version:
        return "Windows"
    names = _CLIENTS if product in {None, _WORKSTATION} else _SERVERS
    name = names.get((version[0] or 0, version[1] or 0), f"Windows {version[0]}.{version[1]}")
    if version[0] == 10 and build is not None:
        if names is _CLIENTS:
            return "Windows 11" if build >= _LATER_CLIENT else name
        return next((server for first, server in _LATER_SERVERS if build >= first), name)
    return name


def _build(machine: Machine, header: DumpHeader | None) -> int | None:
    found = _shared(machine, "NtBuildNumber") or _variable(machine, "NtBuildNumber")
    if not found and header is not None:
        found = header.version[1]
    return found & 0xFFFF if found else None


def _service_pack(machine: Machine) -> str:
    version = _variable(machine, "CmNtCSDVersion")
    major = 0 if version is None else version >> 8 & 0xFF
    return f"Service Pack {major}" if major else ""


def _processors(machine: Machine, header: DumpHeader | None) -> int | None:
    if header is not None and header.processors:
        return header.processors
    return _shared(machine, "ActiveProcessorCount") or None


def _bug_check(machine: Machine, header: DumpHeader | None) -> BugCheck | None:
    words = _bug_check_data(machine) if header is None else (header.bug_check, *header.parameters)
    if not words or not words[0]:
        return None
    code, *parameters = (Hexadecimal(word) for word in words)
    return BugCheck(code, bug_check_name(code), tuple(parameters))


def _bug_check_data(machine: Machine) -> tuple[int, ...]:
    """Return KiBugCheckData, the code and the four parameters of the bug check, or nothing if it cannot be read.

    All five are zero if the machine was still running.
    """
    address = machine.symbol("KiBugCheckData")
    if address is None:
        return ()
    try:
        size = machine.pointer_size
        return tuple(machine.pointer(machine.memory, address + size * index) for index in range(_BUG_CHECK_WORDS))
    except MemoryUnreadable:
        return ()


def _shared(machine: Machine, member: str) -> int | None:
    """Return a member of KUSER_SHARED_DATA, or None if the symbols lack the member or the page is not readable."""
    found = machine.layout.member(f"_KUSER_SHARED_DATA.{member}")
    try:
        return None if found is None else found.read(machine.memory, machine.shared_data)
    except MemoryUnreadable:
        return None


def _variable(machine: Machine, name: str) -> int | None:
    address = machine.symbol(name)
    try:
        return None if address is None else machine.memory.u32(address)
    except MemoryUnreadable:
        return None
