# SPDX-License-Identifier: Apache-2.0
"""What the machine of `ftp-2003` remembers of images that it has unloaded: a DLL of each process, and a driver."""

from __future__ import annotations

import struct

from tests.forge.code import dword
from tests.forge.images import ImageBuilder

DLL, DLL_BASE, DLL_SIZE = "ftpdiag.dll", 0x02E00000, 0x9000
OLDER = "older.dll"
DRIVER, DRIVER_BASE, DRIVER_SIZE = "i8042prt.sys", 0xF7A10000, 0xE000
_GET_TRACE = 0x7C829F00
_TRACES = 16


def add_unloaded_dlls(ntdll: ImageBuilder) -> None:
    """Put RtlpUnloadEventTrace into ntdll, and the function that returns its address."""
    elements = [(OLDER, DLL_BASE - 0x2000, 0x4000, 1), (DLL, DLL_BASE, DLL_SIZE, 2)]
    array = b"".join(
        struct.pack("<IIIII64s", base, size, sequence, 0x45C7B2D1, 0, name.encode("utf-16-le"))
        for name, base, size, sequence in elements
    )
    address = ntdll.place_data(array.ljust(84 * _TRACES, b"\0"), writable=True)
    code = ntdll.code(_GET_TRACE, b"\xb8" + dword(address) + b"\xc3")
    ntdll.name_function("RtlGetUnloadEventTrace", code, exported=True)


def add_unloaded_driver(kernel: ImageBuilder) -> None:
    """Put MmUnloadedDrivers into the kernel, and what it points to."""
    text = DRIVER.encode("utf-16-le")
    name = kernel.place_data(text, writable=True)
    element = struct.pack("<HHIIIQ", len(text), len(text), name, DRIVER_BASE, DRIVER_BASE + DRIVER_SIZE, 1 << 56)
    array = kernel.place_data(element.ljust(24 * 50, b"\0"), writable=True)
    kernel.name_function("MmUnloadedDrivers", kernel.place_data(dword(array), writable=True))
