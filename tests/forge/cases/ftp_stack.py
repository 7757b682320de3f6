# SPDX-License-Identifier: Apache-2.0
"""The stuck thread's user stack of `ftp-2003`: every function of the transcript, outermost first.

Sizes of frames follow from the transcript's addresses and agree with its FPO figures ([parameters, locals, saved
registers]) except where noted. Function starts are ip - offset, except for code that the vendor's linker moved out of
its function: there the transcript's offset counts in the order before the move, so that the start lies in other code.
"""

from __future__ import annotations

from tests.forge.cases.ftp_images import (
    COM_ERROR_VFTABLE,
    FTPSRVDATA_COOKIE,
    MSCORWKS_COOKIE,
    MSVCR80_COOKIE,
    THROW_INFO,
    Library,
)
from tests.forge.chains_x86 import Chain
from tests.forge.code import dword
from tests.forge.functions_x86 import Call, Function, ebp_frame, frameless, raw
from tests.forge.stacks import Stack

RECORD, CONTEXT, POINTERS, COM_ERROR = 0x045BAB68, 0x045BA888, 0x045BA7A4, 0x045BAC00
HRESULT = 0x80004003
ALL = ("ebx", "esi", "edi")
HANDLES, TIMEOUT = 0x001514F8, 0x13880


def throwing_functions(library: Library) -> list[tuple[str, Function]]:
    """Return the functions from the start of the thread to RaiseException, with their modules."""
    kernel32, crt, data = library.runtimes["KERNEL32"], library.runtimes["MSVCR80"], library.runtimes["ftpsrvdata_pg"]
    filter_table = library["KERNEL32"].place_data(dword(0xFFFFFFFF) + dword(0x77E79259) + dword(0x77E64840))
    template = library["MSVCR80"].place_data(
        b"".join(dword(word) for word in (0xE06D7363, 1, 0, 0, 3, 0x19930520, 0, 0))
    )
    com_error = (
        b"\x8b\x44\x24\x14\xc7\x04\x24"
        + dword(COM_ERROR_VFTABLE)
        + bytes.fromhex("89442404")  # hr into the object
        + bytes.fromhex("c744240800000000c744240c00000000")
        + b"\x68"
        + dword(THROW_INFO)
        + bytes.fromhex("8d44240450")
    )
    throw = (
        b"\x8b\x45\x08\x56\x57\x6a\x08\x59\xbe"
        + dword(template)
        + bytes.fromhex(
            "8d7de0f3a58945f88b450c5f8945fc5e"  # copy the template, put object and ThrowInfo into it
            "8d45f450ff75f0ff75e4ff75e0"
        )
    )
    raise_exception = (
        bytes.fromhex("8b45088365b8008945b08b450c8b751483e0018945b4c745bc")
        + dword(0x77E4BE94)
        + bytes.fromhex("8b4d10894dc0578d7dc4f3a55f8d45b050")
    )
    return [
        (
            "KERNEL32",
            Function(
                "BaseThreadStart",
                0x77E647F5,
                kernel32.seh_frame(0xC, 0, filter_table),
                (Call(0x77E64829, 0x781329E1, (0x03266678,), 4, code=b"\xff\x75\x0c", via=b"\xff\x55\x08"),),
                8,
            ),
        ),
        (
            "MSVCR80",
            Function(
                "_threadstartex",
                0x781329E1,
                frameless(0, ("esi",)),
                (Call(0x78132A47, 0x78132990, sets={"esi": 0x03266678}),),
                4,
            ),
        ),
        (
            "MSVCR80",
            Function(
                "_callthreadstartex",
                0x78132990,
                crt.seh4_frame(0xC, MSVCR80_COOKIE),
                (Call(0x781329BB, 0x00D668D0, (0x006AB558,), 4, via="eax"),),
            ),
        ),
        (
            "FTPParsers",
            Function(
                "SessionManagerThreadProc",
                0x00D668D0,
                ebp_frame(0x150, ALL),
                (Call(0x00D66A6A, 0x033DBEA0, (1, 0x045BFE74, 0x15), 0xC, library["FTPParsers"].slot(0x033DBEA0)),),
                4,
            ),
        ),
        (
            "ftpsrvdata_pg",
            Function(
                "IFTPSystemStats_Impl::UpdateSystemStats",
                0x033DBEA0,
                data.eh_frame(0x420, data.handler, FTPSRVDATA_COOKIE, 0),
                # The second argument's slot was used again by the callee, for the address of a temporary.
                (Call(0x033DBF4A, 0x033F9570, (0x045BF9F0, 0x045BCC60), 8),),
                0xC,
            ),
        ),
        (
            "ftpsrvdata_pg",
            Function(
                "IDBCommand::ExecuteResults",
                0x033F9570,
                data.eh_frame(0x2D40, data.handler, None, 2),
                (Call(0x033F9812, 0x033F8780, (0,), sets={"ebx": 0x033F97FE, "esi": 0x045BD1CC, "edi": 0x045BF9B0}),),
                8,
            ),
        ),
        (
            "ftpsrvdata_pg",
            Function(
                "PrintProviderError",
                0x033F8780,
                frameless(0x2028, ("ebx", "ebp", "esi", "edi"), data.chkstk),
                (Call(0x033F87B5, 0x03402F90, (HRESULT,), 4, sets={"esi": 0, "edi": 0}),),
            ),
        ),
        (
            "ftpsrvdata_pg",
            Function("_com_issue_error", 0x03402F90, frameless(), (Call(0x03402F9D, 0x034031F0, (HRESULT, 0), 8),), 4),
        ),
        (
            "ftpsrvdata_pg",
            Function(
                "_com_raise_error",
                0x034031F0,
                frameless(0x10),
                (
                    Call(
                        0x03403222,
                        0x78158E43,
                        (COM_ERROR, THROW_INFO),
                        8,
                        library["ftpsrvdata_pg"].slot(0x78158E43),
                        code=com_error,
                    ),
                ),
                8,
            ),
        ),
        (
            "MSVCR80",
            Function(
                "_CxxThrowException",
                0x78158E43,
                ebp_frame(0x20),
                (
                    Call(
                        0x78158E89,
                        0x77E4BE94,
                        (0xE06D7363, 1, 3, 0x045BABE4),
                        0x10,
                        library["MSVCR80"].slot(0x77E4BE94),
                        code=throw,
                    ),
                ),
                8,
            ),
        ),
        # Its FPO figure counts four saved registers, of which only esi is still on the stack at +0x53.
        (
            "KERNEL32",
            Function(
                "RaiseException",
                0x77E4BE94,
                ebp_frame(0x50, ("esi",)),
                (
                    Call(
                        0x77E4BEE7,
                        0x7C8285FF,
                        (RECORD,),
                        4,
                        library["KERNEL32"].slot(0x7C8285FF),
                        sets={"esi": 0x045BABF0},
                        code=raise_exception,
                    ),
                ),
                0x10,
            ),
        ),
    ]


def dispatching_functions(library: Library) -> list[tuple[str, Function]]:
    """Return the functions from RtlRaiseException to the filter that calls abort."""
    kernel32, crt = library.runtimes["KERNEL32"], library.runtimes["MSVCR71"]
    handler2 = raw(
        0x10,
        {-4: "ebp", -8: 0x045BFFDC, -12: library.runtimes["ntdll"].handler, -16: "seh"},
        "558becff750c5264ff350000000064892500000000",
        "648b2500000000648f05000000008be55d",
        ebp=-4,
        seh=-16,
    )
    handler3 = raw(
        0x1C,
        {-4: "ebp", -8: CONTEXT, -12: RECORD, -16: "ebx", -20: "esi", -24: "edi", -28: lambda ebp: ebp},
        "558bec83ec0853565755fc",
        "5d5f5e5bc9",
        ebp=-4,
    )
    call_filter = bytes.fromhex(
        "8b5d0c8b45088945f88b45108945fc8d45f88943fc8b730c8b7b088d0c768b448f0456558d6b1033db33c933d233f633ff"
    )
    return [
        # The real one keeps the flags with lea esp,[esp-2D0h]; the CONTEXT is all its locals.
        (
            "ntdll",
            Function(
                "RtlRaiseException",
                0x7C8285FF,
                ebp_frame(0x2D0),
                (
                    # RtlDispatchException's first argument slot was used again, for the stack limit.
                    Call(0x7C82863C, 0x7C8286FF, (0x045B0000, CONTEXT), 8, code=bytes.fromhex("8d8530fdffff50ff7508")),
                ),
                4,
            ),
        ),
        (
            "ntdll",
            Function(
                "ExecuteHandler",
                0x7C8286FF,
                ebp_frame(0x80, ALL),
                (
                    Call(
                        0x7C828723,
                        0x7C82872C,
                        (RECORD, 0x045BFFDC, CONTEXT, 0x045BA85C, 0x77E61A60),
                        0x14,
                        code=bytes.fromhex("ff75fcff75f8ff750cff75f4ff75f0"),
                    ),
                ),
                8,
            ),
        ),
        (
            "ntdll",
            Function(
                "ExecuteHandler2",
                0x7C82872C,
                handler2,
                (
                    Call(
                        0x7C828752,
                        0x77E61A60,
                        (RECORD, 0x045BFFDC, CONTEXT, 0x045BA85C),
                        code=bytes.fromhex("ff7514ff7510ff750cff75088b4d18"),
                        via=b"\xff\xd1",
                    ),
                ),
                0x14,
            ),
        ),
        # It calls the filter with ebp of the frame that holds the __try block: its own ebp lies on the stack.
        (
            "KERNEL32",
            Function(
                "_except_handler3",
                0x77E61A60,
                handler3,
                (
                    Call(
                        0x77E61AC1,
                        0x77E79259,
                        (0x045BA7AC, 0),
                        code=call_filter,
                        via=b"\xff\xd0",
                        after=b"\x5d\x5e",
                        sets={"ebx": 0, "esi": 0, "edi": 0, "ebp": 0x045BFFEC},
                    ),
                ),
            ),
        ),
        (
            "KERNEL32",
            Function(
                "BaseThreadStart$filt$0",
                0x77E79259,
                frameless(),
                (Call(0x77E792A3, 0x77E7608D, (POINTERS,), 4, code=b"\x8b\x45\xec\x50"),),
            ),
        ),
        (
            "KERNEL32",
            Function(
                "UnhandledExceptionFilter",
                0x77E7608D,
                kernel32.seh_frame(0x230),
                (Call(0x77E761B7, 0x7C34CF7C, (POINTERS,), via="eax", sets={"esi": POINTERS}),),
                4,
            ),
        ),
        # Its FPO figure has no locals, but 0x30 bytes lie between: frames of the terminate handler that WinDbg missed.
        ("MSVCR71", Function("abort", 0x7C34CF7C, frameless(0x30), (Call(0x7C34CF8A, 0x7C34D203, (0x16, 0xA)),))),
        (
            "MSVCR71",
            Function(
                "raise",
                0x7C34D203,
                crt.seh_frame(0x20),
                (Call(0x7C34D2B1, 0x7C348D15, (3,), sets={"esi": 0x7C391300}),),
            ),
        ),
        (
            "MSVCR71",
            Function(
                "_exit",
                0x7C348D15,
                frameless(),
                (Call(0x7C348D22, 0x7C34761D, (3, 1, 0), code=bytes.fromhex("6a006a01ff74240c")),),
            ),
        ),
        (
            "MSVCR71",
            Function("doexit", 0x7C34761D, crt.seh_frame(8), (Call(0x7C3476C8, 0x7C348CD5, (3,), sets={"esi": 0}),)),
        ),
        (
            "MSVCR71",
            Function("__crtExitProcess", 0x7C348CD5, frameless(), (Call(0x7C348CFA, 0x79004F65, (3,), 4, via="eax"),)),
        ),
    ]


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
                "CorExitProcess", 0x79004F65, ebp_frame(4), (Call(0x79004FAB, 0x79F746A1, (3,), 4, via=b"\xff\xd0", code=found),), 4
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


def lay_out(stack: Stack, library: Library) -> tuple[Chain, int]:
    """Lay the whole thread out on `stack`, put its code into the images; return it and how many frames threw."""
    throwing = throwing_functions(library)
    functions = [*throwing, *dispatching_functions(library), *waiting_functions(library)]
    chain = Chain(stack, 0x045BFFF0)
    for module, function in functions:
        image = library[module]
        image.code(function.start, function.emit())
        image.name_function(function.name, function.start)
        if function.calls:
            chain.enter(function)
        else:
            chain.enter(function, ip=function.start)
    return chain, len(throwing)
