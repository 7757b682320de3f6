# SPDX-License-Identifier: Apache-2.0
"""The result of a stack walk: frames, how each was found, and why the walk ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from throwstack.core.registers import Registers


class Trust(Enum):
    """How a frame's instruction pointer was found, best first."""

    CONTEXT = "context"
    """A saved CONTEXT or a trap frame gave it: the walk began at this frame."""
    CFI = "cfi"
    """The compiler's unwind data led to it: RUNTIME_FUNCTION on x64, FrameData on x86."""
    FPO = "fpo"
    """The old FPO_DATA of an x86 function led to it."""
    FRAME_POINTER = "frame-pointer"
    """The chain of saved ebp (rbp) values led to it, and the return address was checked."""
    PROLOGUE = "prologue"
    """The instructions of the function were decoded to find it."""
    SCAN = "scan"
    """It is a guess: the next word on the stack that can be a return address."""


class End(Enum):
    """Why a walk ended. `Walk.detail` gives the address or number that belongs to the reason."""

    THREAD_START = "start of the thread"
    """The walk is complete: the thread's start routine was reached, or a return address of 0 at the stack's base."""
    STACK_BOUND = "end of the stack"
    """The next frame would be outside the thread's stack."""
    UNREADABLE = "memory is not readable"
    NO_RETURN_ADDRESS = "no return address found"
    BAD_RETURN_ADDRESS = "return address is not in code"
    LOST_RETURN_ADDRESS = "a return address was lost"
    """A return address was overwritten, a jump through a bad pointer left none, or code without unwind data does not
    say where its return address is. If the walk went on by a guess, it may have reached the start of the thread, but
    frames may be missing in between."""
    BAD_UNWIND_DATA = "unwind data is corrupt"
    UNKNOWN_REGISTER = "a register that is needed is not known"
    NO_PROGRESS = "stack pointer does not increase"
    FRAME_LIMIT = "frame limit"
    WORK_LIMIT = "more code than a walk may follow"
    FAULT = "the walk failed"
    """An exception that the code did not foresee, caused by the contents of the stack or of an image."""

    def in_words(self, detail: str) -> str:
        """Return the reason with the address or number that belongs to it, as far as there is one."""
        return f"{self.value}: {detail}" if detail else self.value


@dataclass(frozen=True, slots=True)
class StackBounds:
    """The address range of a stack, `limit` <= address < `base`: the StackLimit and StackBase of a TEB.

    `is_recorded` is False if neither a TEB nor the kernel records that range. Then the stack may end below `base`.
    """

    limit: int
    base: int
    is_recorded: bool = True

    def contains(self, address: int, size: int = 1) -> bool:
        """Say whether all `size` bytes at `address` are on the stack."""
        return self.limit <= address and address + size <= self.base


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Frames of a deep recursion that a walk has passed and not kept.

    `count` says how many they are. `places` are their different instruction pointers, as far as they are noted, from
    the innermost on; each is also that of a frame that was kept. `child_sp` is that of the innermost of them.
    """

    count: int
    places: tuple[int, ...]
    child_sp: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a walk.

    `registers` are the register values at `registers.ip`, in this frame's function; a register whose value there is not
    known is None. `child_sp` is the first column of WinDbg's `k`. On x64 it is the frame's rsp ("Child-SP"); on x86 it
    is the address just below the return address ("ChildEBP": a function that saves ebp saves it there).
    `return_address` is the address in the caller; it is 0 in the outermost frame and None if it could not be found.
    `return_slot` is the stack address at which the return address was found. `trust` says how this frame was found from
    the frame that it called. `is_interrupted` is True if the CPU stopped at `ip`, as in the first frame and in a frame
    that an exception interrupted. If it is False, `ip` is a return address, and the instruction before `ip` is a call.
    `left_out` are the frames between this one and the next one of the walk, None if there are none.
    """

    registers: Registers
    child_sp: int
    return_address: int | None
    return_slot: int | None
    trust: Trust
    note: str = ""
    is_interrupted: bool = False
    left_out: LeftOut | None = None

    @property
    def ip(self) -> int:
        """Return the instruction pointer: where the CPU stopped, or a return address."""
        return self.registers.ip

    @property
    def sp(self) -> int:
        """Return the stack pointer at `ip`."""
        return self.registers.sp


@dataclass(frozen=True, slots=True)
class Walk:
    """A whole walk: the frames, innermost first, and why it ended. Of a deep recursion, frames are left out.

    `gap` says which return address on the way was lost, so that frames may be missing after it; "" if none was. A walk
    over a gap may go on to the start of the thread, or end before it for another reason.
    """

    frames: tuple[Frame, ...]
    end: End
    detail: str = ""
    gap: str = ""

    @property
    def is_complete(self) -> bool:
        """Say whether the walk reached the start of the thread."""
        return self.end is End.THREAD_START

    @property
    def left_out(self) -> int:
        """Return how many frames the walk has passed and not kept."""
        return sum(frame.left_out.count for frame in self.frames if frame.left_out is not None)
