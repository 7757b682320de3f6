# SPDX-License-Identifier: Apache-2.0
"""The stuck thread's user stack of `ftp-2003`: from mscoree's CorExitProcess to the system call.

Function starts are ip - offset, except for the two moved blocks that are marked.
"""

from __future__ import annotations

from tests.forge.cases.ftp_images import MSCORWKS_COOKIE, Library
from tests.forge.cases.ftp_throw import ALL
from tests.forge.code import dword
from tests.forge.functions_x86 import Call, Function, ebp_frame, frameless

HANDLES, TIMEOUT = 0x001514F8, 0x13880


def waiting_functions(library: Library) -> list[tuple[str, Function]]:
    """Return the functions from mscoree's CorExitProcess to the system call."""
    kernel32, clr = library.runtimes["KERNEL32"], library.runtimes["mscorwks"]
    wait = (1, HANDLES, 0, TIMEOUT, 1)
    # mov [ebp-4],mscorwks; push 3; mov eax,its CorExitProcess
    found = bytes.fromhex("c745fc0000e7796a03b8") + dword(0x79F746A1)
    return [
        (
            "mscoree",
            Function(
                "CorExitProcess",
                0x79004F65,
                ebp_frame(4),
                (Call(0x79004FAB, 0x79F746A1, (3,), 4, via=b"\xff\xd0", code=found),),
                4,
            ),
        ),
        (
            "mscorwks",
            Function("DisableRuntime", 0x79F746A1, ebp_frame(0x90), (Call(0x79F7478C, 0x79F74FEF, (0xE10,), 4),), 4),
        ),
        (
            "mscorwks",
            Function(
                "EEShutDown",
                0x79F74FEF,
                clr.eh_frame(8, clr.handler, MSCORWKS_COOKIE, 0),
                (Call(0x79F7509D, 0x79F750B4),),
                4,
            ),
        ),
        ("mscorwks", Function("WaitForEndOfShutdown", 0x79F750B4, frameless(), (Call(0x79F750B9, 0x79F750C0),))),
        # Moved code: +0x30f in the transcript.
        (
            "mscorwks",
            Function(
                "CorExitProcess",
                0x79F750C0,
                ebp_frame(0x60, ALL),
                (Call(0x79F7515D, 0x79E7892D, (TIMEOUT, 1, 0), 0xC),),
            ),
        ),
        (
            "mscorwks",
            Function(
                "CLREvent::Wait", 0x79E7892D, ebp_frame(), (Call(0x79E78944, 0x79ED996B, (TIMEOUT, 1, 0), 0xC),), 0xC
            ),
        ),
        (
            "mscorwks",
            Function(
                "CLREvent::WaitEx",
                0x79ED996B,
                ebp_frame(0x2C, ALL),
                (Call(0x79ED9A62, 0x79ED9684, (*wait, 0, 0), 0x1C),),
                0xC,
            ),
        ),
        (
            "mscorwks",
            Function(
                "Thread::DoAppropriateWait",
                0x79ED9684,
                clr.seh4_frame(0x14, MSCORWKS_COOKIE, ends_try=False),
                (Call(0x79ED96C4, 0x79ED96CC, wait, 0x14),),
                0x1C,
            ),
        ),
        (
            "mscorwks",
            Function(
                "Thread::DoAppropriateWaitWorker",
                0x79ED96CC,
                ebp_frame(0x5C, ALL),
                (Call(0x79ED9808, 0x79F75172, wait, 0x14),),
                0x14,
            ),
        ),
        (
            "mscorwks",
            Function(
                "Thread::DoAppropriateAptStateWait",
                0x79F75172,
                ebp_frame(0, ALL),
                (Call(0x79F7519A, 0x79F751B0, wait[:3], 0xC),),
                0x14,
            ),
        ),
        # Moved code: +0xa5 in the transcript.
        (
            "mscorwks",
            Function(
                "MsgWaitHelper",
                0x79F751B0,
                clr.seh4_frame(0x30, MSCORWKS_COOKIE),
                (Call(0x79F75232, 0x79F7529F, (0, TIMEOUT, 1, HANDLES, 1), 0x14),),
                0xC,
            ),
        ),
        (
            "mscorwks",
            Function(
                "NT5WaitRoutine",
                0x79F7529F,
                ebp_frame(4),
                (
                    Call(
                        0x79F752F0,
                        0x776E2E36,
                        (2, TIMEOUT, 1, HANDLES, 0x045BA128),
                        0x14,
                        library["mscorwks"].slot(0x776E2E36),
                    ),
                ),
                0x14,
            ),
        ),
        (
            "ole32",
            Function(
                "CoWaitForMultipleHandles",
                0x776E2E36,
                ebp_frame(0x50, ALL),
                (Call(0x776E2EFF, 0x776C1F7D, (HANDLES, TIMEOUT, 0x045BA0C4), 0xC),),
                0x14,
            ),
        ),
        (
            "ole32",
            Function(
                "CCliModalLoop::BlockFn",
                0x776C1F7D,
                ebp_frame(0, ALL),
                (
                    Call(
                        0x776C1FFA, 0x7739BA90, (1, HANDLES, TIMEOUT, 0x5FF, 2), 0x14, library["ole32"].slot(0x7739BA90)
                    ),
                ),
                0xC,
            ),
        ),
        (
            "USER32",
            Function(
                "RealMsgWaitForMultipleObjectsEx",
                0x7739BA90,
                ebp_frame(0x34, ALL),
                (
                    Call(
                        0x7739BBD1, 0x77E61F12, (2, 0x045BA040, 0, TIMEOUT, 1), 0x14, library["USER32"].slot(0x77E61F12)
                    ),
                ),
                0x14,
            ),
        ),
        (
            "KERNEL32",
            Function(
                "WaitForMultipleObjectsEx",
                0x77E61F12,
                kernel32.seh_frame(0x70),
                (
                    Call(
                        0x77E6202C,
                        0x7C827CEF,
                        (2, 0x045B9FBC, 1, 1, 0x045B9F94),
                        0x14,
                        library["KERNEL32"].slot(0x7C827CEF),
                    ),
                ),
                0x14,
            ),
        ),
        ("ntdll", system_call("NtWaitForMultipleObjects", 0x7C827CEF, 0x10A, 0x14)),
        ("ntdll", Function("KiFastSystemCallRet", 0x7C8285EC, frameless())),
    ]


def system_call(name: str, start: int, number: int, pops: int) -> Function:
    """Return the stub of a system call: mov eax,number; mov edx,7FFE0300h; call [edx]; ret n."""
    code = b"\xb8" + dword(number) + b"\xba" + dword(0x7FFE0300)
    return Function(name, start, frameless(), (Call(start + 12, 0x7C8285E8, code=code, via=b"\xff\x12"),), pops)
