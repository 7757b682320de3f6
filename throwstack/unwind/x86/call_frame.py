# SPDX-License-Identifier: Apache-2.0
"""The two ends of a step are the place of a frame, which every rule is given, and its caller, which a rule finds."""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.registers import Registers


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a frame as one rule finds it.

    `slot` is the stack address of the return address. `call_sp` is the caller's esp just before its call, which is also
    esp after the return if the callee removes no arguments. `popped` is how many bytes of arguments the callee removes,
    None if that is not known. `gpr` are the registers in the caller, with esp = `call_sp` + `popped`.

    `is_consistent` is False where two registers lead to different places; `doubt` counts the guesses that esp rests on.

    Helpers of the compilers change the frame of the function that calls them. For example, `__SEH_epilog` begins with
    `pop ecx` and ends with `push ecx; ret`: between the two its return address is in ecx. Then `is_in_register` is set,
    and `slot` is where the return address was or will be. `is_past_helper` says that `gpr` are the registers as the
    helper leaves them, not as it found them.
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
    """A frame whose caller is wanted: its registers, and the esp with which it called the frame inside it.

    `call_sp` is esp just before that call instruction, None in the innermost frame, which has called nothing.
    `is_sp_exact` says whether `registers.sp` takes account of the arguments that the callee removed. `is_past_helper`
    is as in `Caller`. `is_in_helper` is its contrary: the frame has called a helper that has not changed it yet. Then
    the registers will be different when `ip` is reached.
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
        """Say whether `ip` is a return address, and not the instruction at which the thread was stopped."""
        return self.call_sp is not None

    @property
    def lowest_sp(self) -> int:
        """Return the lowest stack address that can belong to this frame."""
        return self.registers.sp if self.call_sp is None else self.call_sp
