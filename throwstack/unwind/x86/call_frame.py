# SPDX-License-Identifier: Apache-2.0
"""Defines what a rule is given, `Place` (a frame with its registers), and what it finds, `Caller` (its caller)."""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.registers import Registers


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a frame as one rule finds it.

    `slot` is the stack address of the return address. `call_sp` is the caller's esp just before its call instruction,
    which is also esp after the return if the callee removes no arguments. `popped` is how many bytes of arguments the
    callee removes (`ret n`), or None if that is not known. `gpr` are the caller's registers after the return, with
    esp = `call_sp` + `popped` (`call_sp` if `popped` is None). A register that is not known is None.

    `is_consistent` is False if two registers of the frame imply different values of the caller's esp. `doubt` is the
    number of guessed stack adjustments that the caller's esp depends on.

    Helpers of the compilers change the frame of the function that calls them. For example, `__SEH_epilog` begins with
    `pop ecx` and ends with `push ecx; ret`, so that in between its return address is in ecx. In that case
    `is_in_register` is True, and `slot` is where the return address was or will be. `is_past_helper` is True if the
    callee is such a helper and `gpr` are the registers that the helper leaves. If it is False, the effects of a helper
    are not in `gpr`.
    """

    slot: int
    return_address: int
    call_sp: int
    popped: int | None
    gpr: tuple[int | None, ...]
    is_consistent: bool = True
    doubt: int = 0
    is_in_register: bool = False
    is_past_helper: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A frame whose caller is wanted, with its registers and the esp with which it called the next inner frame.

    `registers` are the registers of the frame. If the frame has called another one, they are those after the return.
    `call_sp` is esp just before the call instruction. It is None where `registers` are those at which code was stopped
    or interrupted, because that code has called nothing. `is_sp_exact` is False if `registers.sp` leaves out the
    arguments that the callee removes, because their size is not known. `is_past_helper` is True if the callee is a
    helper (see `Caller`) and `registers` are what the helper leaves. `is_in_helper` is True if the callee is a helper
    whose effects are not in `registers` yet. In that case the real registers will be different when `ip` is reached.
    """

    registers: Registers
    call_sp: int | None = None
    is_sp_exact: bool = True
    is_past_helper: bool = False
    is_in_helper: bool = False

    @property
    def ip(self) -> int:
        """Return the instruction pointer."""
        return self.registers.ip

    @property
    def is_return_address(self) -> bool:
        """Say whether `ip` is a return address, and not the instruction at which code was stopped or interrupted."""
        return self.call_sp is not None

    @property
    def lowest_sp(self) -> int:
        """Return the lowest stack address that can belong to this frame."""
        return self.registers.sp if self.call_sp is None else self.call_sp
