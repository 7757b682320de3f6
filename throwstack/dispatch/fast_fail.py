# SPDX-License-Identifier: Apache-2.0
"""A fast-fail that goes on in the kernel: no dispatcher, no filter, no CONTEXT on the user's stack.

`__fastfail` is int 29h with the code in ecx (rcx); the kernel has the process reported and ended, and until that is
done the thread waits there (Windows 8 and later). What its trap frame holds are the registers of the failure, and the
record is that of STATUS_STACK_BUFFER_OVERRUN with the code as parameter.
"""

from __future__ import annotations

from dataclasses import replace

from throwstack.core.contexts import Context
from throwstack.core.exception_record import STACK_BUFFER_OVERRUN, ExceptionRecord
from throwstack.core.registers import Registers
from throwstack.dispatch.saved import Route, SavedException
from throwstack.unwind.target import Target

_INSTRUCTION = b"\xcd\x29"
_CX = 1
_NONCONTINUABLE = 1


def failed_fast(target: Target, registers: Registers | None) -> SavedException | None:
    """Return the fast-fail that a thread with these user-mode registers is in, or None.

    No thread waits at any other such instruction, nor behind one: nothing returns from there. Record and CONTEXT are
    not in the process's memory: their addresses are 0.
    """
    ip = None if registers is None else _instruction(target, registers.ip)
    if registers is None or ip is None:
        return None
    code = registers.gpr[_CX]
    parameters = () if code is None else (code & 0xFFFFFFFF,)
    record = ExceptionRecord(STACK_BUFFER_OVERRUN, _NONCONTINUABLE, ip, 0, parameters, 0, len(parameters))
    context = Context(target.arch, 0, 0, replace(registers, ip=ip), *(0,) * 7)
    return SavedException(record, context, (Route.FAST_FAIL,), registers.sp)


def _instruction(target: Target, ip: int) -> int | None:
    """Return where the instruction lies that `ip` is at or, as the processor leaves it, behind."""
    image = target.images.find(ip)
    if image is None:
        return None
    for address in (ip, ip - len(_INSTRUCTION)):
        if target.memory.read_available(address, len(_INSTRUCTION)) == _INSTRUCTION:
            # The 64-bit side of a WoW64 process has the 32-bit program among its modules.
            is_other = image.headers is not None and image.headers.arch is not target.arch
            return None if is_other else address
    return None
