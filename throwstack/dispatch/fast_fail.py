# SPDX-License-Identifier: Apache-2.0
"""Fast-fail: `__fastfail`, which is int 29h with a code in ecx (rcx), on Windows 8 and later.

No user-mode code handles it: there is no dispatcher, no filter, and no CONTEXT on the stack. The kernel has the process
reported and ended, and the thread waits at the int 29h until that is done. The registers of the failure are those in
the thread's trap frame. The exception record would have STATUS_STACK_BUFFER_OVERRUN, with the fail-fast code as its
parameter.
"""

from __future__ import annotations

from dataclasses import replace

from throwstack.core.contexts import Context
from throwstack.core.exception_record import STACK_BUFFER_OVERRUN, ExceptionRecord
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.unwind.target import Target

_INSTRUCTION = b"\xcd\x29"
_CX = 1
_NONCONTINUABLE = 1


def fast_fail_at(target: Target, ip: int) -> int | None:
    """Return the address of the int 29h at which a thread waits, or None. `ip` is the thread's instruction pointer.

    The processor leaves `ip` at the int 29h or at the next instruction. If either is so, the thread has failed fast,
    because int 29h never returns.
    """
    image = target.images.find(ip)
    if image is None:
        return None
    for address in (ip, ip - len(_INSTRUCTION)):
        if target.memory.read_available(address, len(_INSTRUCTION)) == _INSTRUCTION:
            # The 64-bit side of a WoW64 process has the 32-bit program among its modules.
            is_other = image.headers is not None and image.headers.arch is not target.arch
            return None if is_other else address
    return None


def fast_fail_exception(arch: Arch, registers: Registers, ip: int) -> SavedException:
    """Return the exception of a thread that failed fast at `ip`, the address of the int 29h.

    `registers` are the thread's user-mode registers, from which record and CONTEXT are made. These are not in the
    process's memory, so their addresses are 0.
    """
    code = registers.gpr[_CX]
    parameters = () if code is None else (code & 0xFFFFFFFF,)
    record = ExceptionRecord(STACK_BUFFER_OVERRUN, _NONCONTINUABLE, ip, 0, parameters, 0, len(parameters))
    context = Context(arch, 0, 0, replace(registers, ip=ip), *(0,) * 7)
    return SavedException(record, context, (Route.FAST_FAIL,), registers.sp)
