# SPDX-License-Identifier: Apache-2.0
"""Small machines for the tests of the forge: described here, looked at through Volatility."""

from __future__ import annotations

import struct

from tests.forge.describe import LoadedModule, Machine, Paging, Process, Protection, Region, Thread

PAGE = 0x1000
IMAGE_PAGES = 12
VERSIONS = {Paging.X64: (10, 0, 19041), Paging.PAE: (5, 2, 3790), Paging.X86: (5, 2, 3790)}


def image(fill: int = 0) -> bytes:
    """Return a mapped image of 12 pages with two sections, at pages 1 and 5; each page has its own contents."""
    sections = b"".join(
        struct.pack("<8sIIIIIIHHI", name, size, rva, size, rva, 0, 0, 0, 0, flags)
        for name, rva, size, flags in (
            (b".text", PAGE, 4 * PAGE, 0x60000020),
            (b".data", 5 * PAGE, 7 * PAGE, 0xC0000040),
        )
    )
    optional = struct.pack("<H", 0x10B).ljust(0x60, b"\0") + bytes(0x80)
    header = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0"
    header += struct.pack("<HHIIIHH", 0x14C, 2, 0, 0, 0, len(optional), 0x102) + optional + sections
    pages = [
        header.ljust(PAGE, b"\xcc"),
        *(struct.pack("<HH", fill, page) * (PAGE // 4) for page in range(1, IMAGE_PAGES)),
    ]
    return b"".join(pages)


def base_of_ntdll(paging: Paging) -> int:
    """Return where the sample's image is."""
    return 0x7FF8_12340000 if paging.is_64bit else 0x7C800000


def registers(paging: Paging, ip: int, sp: int) -> dict[str, int]:
    """Return user registers, each with a value of its own."""
    if paging.is_64bit:
        return {"rip": ip, "rsp": sp, "rbp": 0x1111, "rbx": 0x2222, "rsi": 0x3333, "rdi": 0x4444}
    return {"eip": ip, "esp": sp, "ebp": 0x1111, "ebx": 0x2222, "esi": 0x3333, "edi": 0x4444}


def thread(paging: Paging, tid: int, teb: int, stack_base: int) -> Thread:
    """Return a waiting thread whose stack has 4 pages."""
    ntdll = base_of_ntdll(paging)
    return Thread(
        tid,
        teb,
        stack_base,
        stack_base - 4 * PAGE,
        registers(paging, ntdll + PAGE + 0x10, stack_base - 0x100),
        start_address=ntdll + PAGE + 4,
        win32_start_address=ntdll + PAGE + 8,
        wait_ticks=7000,
    )


def process(paging: Paging, pid: int, name: str, shared: bytes, threads: int = 2) -> Process:
    """Return a process with an image, and some threads with their stacks."""
    ntdll = base_of_ntdll(paging)
    made = Process(pid, name, image_path=f"C:\\{name}")
    made.modules = [LoadedModule("ntdll.dll", "C:\\WINDOWS\\system32\\ntdll.dll", ntdll, len(shared), timestamp=0x4D00)]
    made.regions = [
        Region(ntdll, shared, Protection.EXECUTE_WRITE_COPY, "\\WINDOWS\\system32\\ntdll.dll", is_image=True)
    ]
    for number in range(threads):
        base = 0x40000 + 0x100000 * number
        made.regions.append(Region(base - 4 * PAGE, bytes([number + 1]) * (4 * PAGE)))
        made.threads.append(thread(paging, pid + 4 + 4 * number, 0x7FFD0000 - 0x4000 * number, base))
    return made


def machine(paging: Paging, version: tuple[int, int, int] | None = None) -> Machine:
    """Return a machine with two processes that share an image, each with two threads."""
    shared = image()
    processes = [process(paging, 0x200, "first.exe", shared), process(paging, 0x300, "second.exe", shared)]
    return Machine(paging, version or VERSIONS[paging], processes, bug_check=(0xE2, 1, 2, 3, 4))
