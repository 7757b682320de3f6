# SPDX-License-Identifier: Apache-2.0
"""The images of `ftp-2003`: bases and sizes that fit the transcript's addresses, exports as the real DLLs have them."""

from __future__ import annotations

from tests.forge.code import dword
from tests.forge.images import ImageBuilder, pdb_of
from tests.forge.runtime_x86 import Runtime, add_runtime

SYSTEM = "\\WINDOWS\\system32"
FRAMEWORK = "\\WINDOWS\\Microsoft.NET\\Framework\\v2.0.50727"
SIDE_BY_SIDE = "\\WINDOWS\\WinSxS\\x86_Microsoft.VC80.CRT_1fc8b3b9a1e18e3b_8.0.50727.42_x-ww_0de06acd"
PROGRAM = "\\Program Files\\Ipswitch\\iFtpSvc"

# Cookies follow from the transcript: a function protects its frame with cookie ^ ebp, and these words are in it.
MSVCR80_COOKIE = 0x1E2328F2 ^ 0x045BFFB0
MSCORWKS_COOKIE = 0x1E232538 ^ 0x045BA3AC
FTPSRVDATA_COOKIE = 0x71F5CADB ^ 0x045BFE08

THROW_INFO = 0x03440A54
COM_ERROR_VFTABLE = 0x0342DC6C

# name: base, size of .text, .rdata and .data, directory, ISF
_LAYOUT = {
    "ntdll.dll": (0x7C800000, 0x2B000, 0x2000, 0x1000, SYSTEM, True),
    "KERNEL32.dll": (0x77E40000, 0x3A000, 0x2000, 0x1000, SYSTEM, True),
    "USER32.dll": (0x77380000, 0x1D000, 0x1000, 0x1000, SYSTEM, True),
    "ole32.dll": (0x77670000, 0x74000, 0x1000, 0x1000, SYSTEM, True),
    "RPCRT4.dll": (0x77C50000, 0x8000, 0x1000, 0x1000, SYSTEM, False),
    "MSVCR71.dll": (0x7C340000, 0xF000, 0x2000, 0x40000, SYSTEM, True),
    "MSVCR80.dll": (0x78130000, 0x2A000, 0x2000, 0x1000, SIDE_BY_SIDE, False),
    "mscoree.dll": (0x79000000, 0x6000, 0x1000, 0x1000, SYSTEM, True),
    "mscorwks.dll": (0x79E70000, 0x107000, 0x1000, 0x1000, FRAMEWORK, True),
    "ftpsrvdata_pg.dll": (0x033D0000, 0x34000, 0x30000, 0x10000, PROGRAM, True),
    "FTPParsers.dll": (0x00D60000, 0x7000, 0x1000, 0x1000, PROGRAM, True),
}

_COOKIES = {"MSVCR80.dll": MSVCR80_COOKIE, "mscorwks.dll": MSCORWKS_COOKIE, "ftpsrvdata_pg.dll": FTPSRVDATA_COOKIE}

_EXPORTS = {
    "KERNEL32.dll": {
        "RaiseException": 0x77E4BE94,
        "UnhandledExceptionFilter": 0x77E7608D,
        "WaitForMultipleObjectsEx": 0x77E61F12,
    },
    "ntdll.dll": {
        "KiFastSystemCall": 0x7C8285E8,
        "KiFastSystemCallRet": 0x7C8285EC,
        "NtWaitForMultipleObjects": 0x7C827CEF,
        "ZwWaitForMultipleObjects": 0x7C827CEF,
        "RtlRaiseException": 0x7C8285FF,
    },
    "USER32.dll": {"RealMsgWaitForMultipleObjectsEx": 0x7739BA90},
    "ole32.dll": {"CoWaitForMultipleHandles": 0x776E2E36},
    "mscoree.dll": {"CorExitProcess": 0x79004F65},
    "mscorwks.dll": {"CorExitProcess": 0x79F750C0},
    "MSVCR71.dll": {"_exit": 0x7C348D15, "raise": 0x7C34D203, "abort": 0x7C34CF7C},
    "MSVCR80.dll": {"_CxxThrowException": 0x78158E43, "_endthreadex": 0x78132980},
}


class Library:
    """The builders and compiler runtimes of the DLLs, by name without extension."""

    def __init__(self) -> None:
        """Make the builders, without code but for the runtimes."""
        self.images: dict[str, ImageBuilder] = {}
        self.runtimes: dict[str, Runtime] = {}
        for name, (base, text, rdata, data, directory, has_isf) in _LAYOUT.items():
            image = ImageBuilder(
                name, base, text, rdata, data, pdb=pdb_of(name, "5.2.3790"), directory=directory, has_isf=has_isf
            )
            image.exports.update(_EXPORTS.get(name, {}))
            handler = 0x77E61A60 if name == "KERNEL32.dll" else None
            stem = name.removesuffix(".dll")
            self.images[stem] = image
            self.runtimes[stem] = add_runtime(image, _COOKIES.get(name, 0x0000BB40), handler)

    def __getitem__(self, stem: str) -> ImageBuilder:
        """Return the builder of a DLL."""
        return self.images[stem]


def add_com_error(image: ImageBuilder) -> None:
    """Put `_com_error`'s vftable and ThrowInfo, with what it leads to, where the transcript has them."""
    name = b".?AV_com_error@@\0"
    type_info_vftable = 0x7818A7B8  # MSVCR80's const type_info::`vftable'
    descriptor = image.place_data(dword(type_info_vftable) + dword(0) + name, writable=True)
    copy_constructor = destructor = 0x03403300
    image.code(destructor, bytes.fromhex("8bc1c20400"))
    # CatchableType: properties, type, this-displacement (mdisp, pdisp, vdisp), size, copy constructor
    catchable = image.place_data(b"".join(dword(v) for v in (0, descriptor, 0, 0xFFFFFFFF, 0, 0x10, copy_constructor)))
    array = image.place_data(dword(1) + dword(catchable))
    image.data(THROW_INFO, b"".join(dword(v) for v in (0, destructor, 0, array)))
    image.data(COM_ERROR_VFTABLE, dword(destructor))
