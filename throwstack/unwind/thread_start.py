# SPDX-License-Identifier: Apache-2.0
"""Says whether a return address of 0 is that of the outermost frame, or a return address that was overwritten.

The kernel starts a thread in a start routine (RtlUserThreadStart; before Vista BaseThreadStart), which nobody has
called. The word where its return address would be is 0. A buffer overrun may write zeros as well:

    char buffer[256]; memset(buffer, 0, 4096);

The return address of that function is now 0, and so are those of some of its callers. Frames of the callers after them
are still on the stack. So a 0 is the end of the stack only in a start routine, or at the base of the stack, where no
frame of a caller is left above it.

The stack that the TEB records need not be one on which the kernel has started a thread. Windows' SwitchToFiber and
Boost.Context enter the bounds of a fiber's stack into the TEB while the fiber runs. SwitchToFiber's begin in
RtlUserFiberStart, but on a stack of a library's making any function of the program may be the outermost one. The TEB
does not tell: its bit HasFiberData is set by ConvertThreadToFiber, and Boost.Context does without that. So a 0 at the
base is refused in these cases:

- A function of ntdll, kernel32 or KERNELBASE that is no start routine has a caller: no library begins a stack there.
- All functions of a process without kernel32 have, as it has no fibers.
- Since Vista, all threads and fibers of Windows begin in ntdll. Any other function is the outermost only as a library
  lays out a stack, with the first frame at the very base. A memset over the rest of a thread's stack leaves zeros too,
  but the frames of the start routine and of BaseThreadInitThunk were above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from throwstack.core.frames import StackBounds
from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.unwind.code_outside import CodeOutside

START_ROUTINES = frozenset({"RtlUserThreadStart", "RtlUserFiberStart", "LdrInitializeThunk"})
"""The functions of ntdll in which stacks begin since Vista, as it exports them.

Every thread of a user process starts in RtlUserThreadStart, and a fiber in RtlUserFiberStart. The 64-bit stack of a
WoW64 thread, and any thread while DLLs are initialized for it, starts in LdrInitializeThunk.
"""
SYSTEM_MODULES = frozenset({"ntdll", "kernel32", "kernelbase"})
"""The modules in which no stack begins but in a start routine, which since Vista is one of ntdll's; without `.dll`."""
FIRST_CALLED = "BaseThreadInitThunk"
"""The function of kernel32 that RtlUserThreadStart calls. It exists since Vista."""
_FARTHEST = 0x4000
"""The most bytes above the outermost frame that are looked at.

Real stacks need less: Vista and later start a thread's stack pointer at a random distance of up to half a page below
the base, and the 64-bit stack of a WoW64 thread begins below the CONTEXT with which the thread was started (0x4D0
bytes).
"""
_FARTHEST_OF_LIBRARIES = 0x80
"""The most bytes above the outermost frame on a stack that a library has laid out.

These are the home space of the first function and what aligns the stack pointer. Above a function that
BaseThreadInitThunk has called on x64 there are more, in the frames of its callers alone.
"""
_MAX_READABLE = 1 << 20
_OVERWRITTEN = "was overwritten: it is"


def overwritten(slot: int, value: int = 0) -> str:
    """Say that the return address at `slot`, which is `value` now, was overwritten: the detail of a walk's end."""
    return f"the return address at {slot:#x} {_OVERWRITTEN} {value:#x}"


def says_overwritten(detail: str) -> bool:
    """Say whether `detail`, that of a walk's end, is what `overwritten` says, and not another reason."""
    return _OVERWRITTEN in detail


def led_nowhere(ip: int) -> str:
    """Say that nothing tells from where the thread came to `ip`, where no code is: the detail of a walk's end."""
    return f"{ip:#x} is not code, and the return address of the frame that led there is not known"


@dataclass(frozen=True, slots=True)
class StackEnds:
    """Recognizes the outermost frames of the stacks of one address space.

    `outside` gives the regions of memory, one of which is the stack of a fiber. `pointer_size` is the size of a word in
    bytes. `is_return_address` says whether a word can be the return address of a call.
    """

    memory: Memory
    outside: CodeOutside
    pointer_size: int
    is_return_address: Callable[[int], bool]

    def is_outermost(self, slot: int, stack: StackBounds, *, has_caller: bool, is_library_s: bool = False) -> bool:
        """Say whether a return address of 0 at `slot` is that of the outermost frame on its stack.

        The frame is not in a start routine: there, any return address is the last one. `stack` are the bounds of the
        stack that is walked. `has_caller` says that the frame's function is known to have a caller if `stack` is that
        of a thread. Then the 0 was written over another return address. Elsewhere the 0 must be at the base: at most
        16 KiB are above it, and no word of them is a return address. `is_library_s` says that only a library can have
        laid out a stack that begins in the frame's function. Then, if `stack` is recorded, at most 128 bytes are.
        """
        farthest = _FARTHEST
        above = slot + self.pointer_size
        if stack.is_recorded and stack.contains(slot, self.pointer_size):
            if has_caller:
                return False
            base = stack.base
            farthest = _FARTHEST_OF_LIBRARIES if is_library_s else _FARTHEST
        else:
            base = self._base(slot)
        return base - above <= farthest and self._has_no_return_address(above, base)

    def are_apart(self, one: int, other: int) -> bool:
        """Say whether two stack addresses are known to be in different regions of memory, and so on two stacks."""
        region = self.outside.region(one)
        return region is not None and not region.start <= other < region.end

    def _base(self, slot: int) -> int:
        """Return the end of the memory that `slot` is in: that of its region, or else of what is readable there."""
        region = self.outside.region(slot)
        if region is not None:
            return region.end
        start = slot & -PAGE_SIZE
        return start + len(self.memory.read_available(start, _MAX_READABLE))

    def _has_no_return_address(self, low: int, high: int) -> bool:
        size = (high - low) & -self.pointer_size
        if size <= 0:
            return True
        try:
            words = memoryview(self.memory.read(low, size)).cast("I" if self.pointer_size == 4 else "Q")
        except MemoryUnreadable:
            return False
        return not any(word and self.is_return_address(word) for word in words)
