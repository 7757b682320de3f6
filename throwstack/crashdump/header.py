# SPDX-License-Identifier: Apache-2.0
"""Reads the header of a Windows crash dump: DUMP_HEADER (x86, one page) or DUMP_HEADER64 (two pages).

Offsets are those of the structures in the Windows SDK (DUMP_HEADER32, DUMP_HEADER64). Dump types 8 to 10 are not in the
SDK: `.dump` of current debuggers writes them, and public parsers (kdmp-parser) describe them.

Windows fills the header with the letters PAGE over and over before it writes the members. A member that Windows does
not write keeps these letters. So an up time of 0x4547415045474150 ("PAGEPAGE") means that no up time was written.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

from throwstack.core.memory import PAGE_SIZE
from throwstack.crashdump.file_bytes import ByteSource
from throwstack.pages.page_tables import PagingMode

_MACHINE_ARM64 = 0xAA64
_FILLER = b"PAGE" * 2


class DumpKind(Enum):
    """What a crash dump contains; the value is DUMP_HEADER.DumpType."""

    FULL = 1
    """All of physical memory, in runs."""
    SUMMARY = 2
    """The kernel's pages, listed by a bitmap: Windows 2000 to 7."""
    HEADER = 3
    """The header alone."""
    TRIAGE = 4
    """A small dump ("minidump"): one thread's kernel stack, the modules."""
    BITMAP_FULL = 5
    """All of physical memory that is in use, listed by a bitmap: Windows 8 and later."""
    BITMAP_KERNEL = 6
    """The kernel's pages, and user pages if requested (active memory dump, live dump), listed by a bitmap."""
    AUTOMATIC = 7
    """The kernel's pages, listed by a bitmap: the default since Windows 8."""
    LIVE_KERNEL = 8
    """`.dump /k`: the kernel's pages."""
    LIVE_USER = 9
    """`.dump /ka`: the kernel's and users' pages."""
    LIVE_FULL = 10
    """`.dump /f`: all of memory."""


@dataclass(frozen=True, slots=True)
class DumpHeader:
    """The members of a crash dump's header.

    `kind` is None if `dump_type` is unknown. `directory_base` is the physical address of the page tables (CR3).
    `module_list` and `debugger_data` are the addresses of PsLoadedModuleList and of KDDEBUGGER_DATA64. `bug_check` is
    the bug check code, with its four `parameters`. `system_time` is a FILETIME, and `up_time` is in units of 100 ns;
    each is None if Windows did not write it.
    """

    is_64bit: bool
    has_pae: bool
    kind: DumpKind | None
    dump_type: int
    version: tuple[int, int]
    machine: int
    processors: int
    directory_base: int
    module_list: int
    debugger_data: int
    bug_check: int
    parameters: tuple[int, int, int, int]
    system_time: int | None
    up_time: int | None

    @property
    def size(self) -> int:
        """Return the header's length in bytes."""
        return 2 * PAGE_SIZE if self.is_64bit else PAGE_SIZE

    @property
    def paging(self) -> PagingMode:
        """Return the format of the machine's page tables."""
        if self.is_64bit:
            return PagingMode.X64
        return PagingMode.PAE if self.has_pae else PagingMode.X86

    @property
    def is_arm64(self) -> bool:
        """Say whether the dump is from an ARM64 machine. Page tables of ARM64 are not supported."""
        return self.machine == _MACHINE_ARM64


def read_header(data: ByteSource) -> DumpHeader | None:
    """Return the crash dump header at the start of a file; None if there is none or the file ends within it."""
    page = data.read(0, 2 * PAGE_SIZE)
    if page[:8] == b"PAGEDU64" and len(page) == 2 * PAGE_SIZE:
        return _header64(page)
    if page[:8] == b"PAGEDUMP" and len(page) >= PAGE_SIZE:
        return _header32(page)
    return None


def _header64(page: bytes) -> DumpHeader:
    major, minor, directory_base, _, module_list = struct.unpack_from("<II3Q", page, 8)
    machine, processors, bug_check, _, *parameters = struct.unpack_from("<4I4Q", page, 0x30)
    (dump_type,) = struct.unpack_from("<I", page, 0xF98)
    return DumpHeader(
        is_64bit=True,
        has_pae=False,
        kind=_kind(dump_type),
        dump_type=dump_type,
        version=(major, minor),
        machine=machine,
        processors=processors,
        directory_base=directory_base,
        module_list=module_list,
        debugger_data=struct.unpack_from("<Q", page, 0x80)[0],
        bug_check=bug_check,
        parameters=(parameters[0], parameters[1], parameters[2], parameters[3]),
        system_time=_optional(page, 0xFA8),
        up_time=_optional(page, 0x1030),
    )


def _header32(page: bytes) -> DumpHeader:
    major, minor, directory_base, _, module_list = struct.unpack_from("<5I", page, 8)
    machine, processors, bug_check, *parameters = struct.unpack_from("<7I", page, 0x20)
    (dump_type,) = struct.unpack_from("<I", page, 0xF88)
    return DumpHeader(
        is_64bit=False,
        has_pae=page[0x5C] == 1,
        kind=_kind(dump_type),
        dump_type=dump_type,
        version=(major, minor),
        machine=machine,
        processors=processors,
        directory_base=directory_base,
        module_list=module_list,
        debugger_data=struct.unpack_from("<I", page, 0x60)[0],
        bug_check=bug_check,
        parameters=(parameters[0], parameters[1], parameters[2], parameters[3]),
        system_time=_optional(page, 0xFC0),
        up_time=_optional(page, 0xFB8),
    )


def _kind(dump_type: int) -> DumpKind | None:
    try:
        return DumpKind(dump_type)
    except ValueError:
        return None


def _optional(page: bytes, offset: int) -> int | None:
    raw = page[offset : offset + 8]
    if raw == _FILLER or not any(raw):
        return None
    return int.from_bytes(raw, "little")
