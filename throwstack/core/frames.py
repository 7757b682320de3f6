# SPDX-License-Identifier: Apache-2.0
"""What a stack walk yields: frames, how each was found, and why the walk ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from throwstack.core.registers import Registers


class Trust(Enum):
    """How a frame's instruction pointer was found, best first."""

    CONTEXT = "context"
    """Given: a saved CONTEXT or a trap frame."""
    CFI = "cfi"
    """The compiler's unwind data: RUNTIME_FUNCTION on x64, FrameData on x86."""
    FPO = "fpo"
    """Old FPO_DATA of an x86 function."""
    FRAME_POINTER = "frame-pointer"
    """The saved ebp chain, return address checked."""
    PROLOGUE = "prologue"
    """The function's instructions, decoded."""
    SCAN = "scan"
    """The next word on the stack that can be a return address: a guess."""


class End(Enum):
    """Why a walk ended. `Walk.detail` carries the address or figure that belongs to it."""

    THREAD_START = "start of the thread"
    """The stack is complete: the return address is zero or the thread's start routine was reached."""
    STACK_BOUND = "end of the stack"
    """The next frame would lie outside the thread's stack."""
    UNREADABLE = "memory is not readable"
    NO_RETURN_ADDRESS = "no return address found"
    BAD_RETURN_ADDRESS = "return address is not in code"
    BAD_UNWIND_DATA = "unwind data is corrupt"
    UNKNOWN_REGISTER = "a register that is needed is not known"
    NO_PROGRESS = "stack pointer does not increase"
    FRAME_LIMIT = "frame limit"
    WORK_LIMIT = "more code than a walk may follow"
    FAULT = "the walk failed"
    """An error that nobody foresaw, at something the stack or an image holds."""


@dataclass(frozen=True, slots=True)
class StackBounds:
    """The range of a thread's stack, as its TEB records it: `limit` <= address < `base` (StackLimit, StackBase)."""

    limit: int
    base: int

    def contains(self, address: int, size: int = 1) -> bool:
        """Say whether the `size` bytes at `address` lie on the stack."""
        return self.limit <= address and address + size <= self.base


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, innermost first in a walk.

    `registers` are those at `registers.ip` in this frame, its nonvolatile registers restored. `child_sp` is what
    WinDbg prints first: rsp in the frame on x64 ("Child-SP"); on x86 the address just below the return address
    ("ChildEBP", where ebp is saved if the function saves it). `return_address` is where this frame returns to (0 at
    the outermost frame, None if it could not be found) and `return_slot` the stack address that holds it. `trust`
    says how this frame was found from the one inside it. `is_interrupted`: the CPU stopped at `ip` (the first frame,
    and one that an exception interrupted); otherwise `ip` is a return address and the call stands before it.
    """

    registers: Registers
    child_sp: int
    return_address: int | None
    return_slot: int | None
    trust: Trust
    note: str = ""
    is_interrupted: bool = False

    @property
    def ip(self) -> int:
        """Return the instruction pointer: the throwing instruction or a return address."""
        return self.registers.ip

    @property
    def sp(self) -> int:
        """Return the stack pointer at `ip`."""
        return self.registers.sp


@dataclass(frozen=True, slots=True)
class Walk:
    """A whole walk: the frames, innermost first, and why it ended."""

    frames: tuple[Frame, ...]
    end: End
    detail: str = ""

    @property
    def is_complete(self) -> bool:
        """Say whether the walk reached the start of the thread."""
        return self.end is End.THREAD_START
