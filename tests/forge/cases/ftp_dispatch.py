# SPDX-License-Identifier: Apache-2.0
"""The stuck thread's user stack of `ftp-2003`: from RtlRaiseException through abort to the exit."""

from __future__ import annotations

from tests.forge.cases.ftp_images import Library
from tests.forge.cases.ftp_throw import ALL, RECORD
from tests.forge.functions_x86 import Call, Function, ebp_frame, frameless, raw

CONTEXT, POINTERS = 0x045BA888, 0x045BA7A4


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
        # It calls the filter with ebp of the frame that holds the __try block: its own ebp is on the stack.
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
        # Its FPO figure has no locals, but 0x30 bytes are between: frames of the terminate handler that WinDbg missed.
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
