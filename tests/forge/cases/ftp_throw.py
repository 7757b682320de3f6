# SPDX-License-Identifier: Apache-2.0
"""The stuck thread's user stack of `ftp-2003`: from the start of the thread to RaiseException.

Sizes of frames follow from the transcript's addresses and agree with its FPO figures ([parameters, locals, saved
registers]) except where noted. Function starts are ip - offset, except for code that the vendor's linker moved out of
its function: there the transcript's offset counts in the order before the move, so that the start is in other code.
"""

from __future__ import annotations

from tests.forge.cases.ftp_images import (
    COM_ERROR_VFTABLE,
    FTPSRVDATA_COOKIE,
    MSVCR80_COOKIE,
    THROW_INFO,
    Library,
)
from tests.forge.code import dword
from tests.forge.functions_x86 import Call, Function, ebp_frame, frameless

RECORD, COM_ERROR = 0x045BAB68, 0x045BAC00
HRESULT = 0x80004003
ALL = ("ebx", "esi", "edi")


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
