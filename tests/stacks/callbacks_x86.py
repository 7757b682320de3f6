# SPDX-License-Identifier: Apache-2.0
"""Lays out user-mode callbacks of x86: the kernel, in a system call, has a window procedure or a hook called.

As on Windows 7: the kernel copies what the routine needs to the stack below the system call's return address, and goes
on in KiUserCallbackDispatcher. Two arguments are at its esp, the address of the copy and its size; two words between
these and the copy become an exception registration, whose handler is ntdll's.
"""

from __future__ import annotations

from dataclasses import replace

from tests.forge.chains_x86 import Chain
from tests.forge.code import Emitter, dword

DISPATCHER = "KiUserCallbackDispatcher"
RETURNS = 0xC
"""Where a system call's stub goes on, from its start."""
_COPY = (0x00631A20, 0x113, 0x10, 0x20, 0x00631C48, 0x75A1C4E0)
"""What USER32's __fnDWORD takes: window, message, wParam, lParam, and the window procedure with its own parameter."""
_REGISTERS = "648b0d00000000", b"\xba", "8d442410894c24108954241464a300000000"
_CALLS = "83c4045a64a1180000008b40308b402cff1490"
"""add esp, 4; pop edx; the table of routines from the PEB; call [eax+edx*4]"""


def code(start: int, goes_on: int, handler: int) -> bytes:
    """Return the dispatcher's code, whose call of the routine ends at `goes_on`; NtCallbackReturn is after that."""
    load, move, register = _REGISTERS
    emitter = Emitter(start).emit(load, move, dword(handler), register)
    return bytes(emitter.pad_to(goes_on - len(_CALLS) // 2).emit(_CALLS, "33c933d2cd2bcc").data)


def call_back(chain: Chain, goes_on: int, handler: int) -> None:
    """Let the kernel call back from the system call whose stub `chain` has entered last; register `handler`.

    The stub is one that calls KiFastSystemCall, so that there is a return address into the stub itself.
    """
    stub = chain.placed[-1].registers
    slot = stub["esp"] - 4
    copy = slot - 4 * len(_COPY)
    node, arguments = copy - 8, copy - 16
    chain.stack.at(arguments).d32(copy, 4 * len(_COPY), chain.seh, handler, *_COPY, stub["eip"])
    chain.seh = node
    chain.return_slot, chain.return_address = arguments - 4, goes_on
    registers = {**stub, "esp": arguments, "eip": goes_on}
    chain.placed.append(replace(chain.placed[-1], return_slot=slot, return_address=stub["eip"], registers=registers))
