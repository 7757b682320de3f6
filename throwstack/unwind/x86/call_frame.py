# SPDX-License-Identifier: Apache-2.0
"""The two ends of a step: the place of a frame, which every rule is asked about, and its caller, which a rule finds."""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.registers import Registers


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a frame as one rule finds it.

    `slot` is where the return address lies, `call_sp` the caller's esp just before its call (just after the return, if
    the callee removes no arguments), `popped` the bytes of arguments the callee removes (None: not known), `gpr` the
    registers in the caller with esp = `call_sp` + `popped`.

    A helper such as `__SEH_epilog` takes its return address off the stack and keeps it in a register for a while:
    `is_in_register`, and `slot` is then where it was or will be. Such a helper changes its caller's frame, and
    `is_past_helper` says that `gpr` are the registers as the helper leaves them, not as it found them.
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
    """Where a frame stands: its registers, and for all but the innermost where the call below it began.

    `call_sp` is esp before that call instruction, None in the innermost frame; `is_sp_exact` says whether registers.sp
    takes account of the arguments the callee removed; `is_past_helper` as in `Caller`. `is_in_helper` says the
    contrary: a helper was called and has not changed the frame yet, so that `ip` will be reached with other registers.
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
        """Say whether `ip` is where a call returns to, and not where the thread stands."""
        return self.call_sp is not None

    @property
    def lowest_sp(self) -> int:
        """Return the lowest address at which something of this frame can lie."""
        return self.registers.sp if self.call_sp is None else self.call_sp
