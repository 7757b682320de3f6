# SPDX-License-Identifier: Apache-2.0
"""Recognizes the outermost frames of x86 stacks: those whose return address of 0 is not an overwritten one.

`throwstack.unwind.thread_start` explains the question. Before Windows Vista the kernel starts threads in
BaseThreadStart and BaseProcessStart of kernel32, or right in a routine of the program, and the outermost frame is at
the very base of the stack. Since Vista it starts them in RtlUserThreadStart of ntdll, at a random distance from it.
"""

from __future__ import annotations

from functools import cached_property

from throwstack.core.frames import StackBounds
from throwstack.core.registers import BP
from throwstack.names.symbols import SymbolKind
from throwstack.unwind.thread_start import StackEnds
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.code import Code

_NTDLL = "ntdll"
_SINCE_VISTA = ("_RtlUserThreadStart", "RtlUserThreadStart")
_START_ROUTINES = frozenset({"BaseThreadStart", "BaseProcessStart", *_SINCE_VISTA})


class OutermostFrames:
    """Recognizes the outermost frames of one address space."""

    def __init__(self, code: Code, ends: StackEnds) -> None:
        """`code` is the address space's code; `ends` knows where its stacks end."""
        self._code = code
        self._ends = ends

    def is_start_routine(self, place: Place) -> bool:
        """Say whether the function at `place` is one in which the kernel starts threads, and which nobody calls."""
        name = self._code.symbols.name(place.ip, is_return_address=place.is_return_address)
        return name.symbol in _START_ROUTINES and not name.is_doubtful

    def is_outermost(self, place: Place, caller: Caller, stack: StackBounds) -> bool:
        """Say whether the return address of the frame at `place`, which is 0 in the slot of `caller`, is the last one.

        A thread starts with ebp = 0. So an ebp that points further up the stack belongs to a frame that called this
        one. Code outside the images is called by a function of an image, which has started the thread.
        """
        if self.is_start_routine(place):
            return True
        bp = caller.gpr[BP]
        if self._code.is_outside(place.ip) or (bp is not None and bp > caller.slot and stack.contains(bp, 8)):
            return False
        return self._ends.is_outermost(caller.slot, stack, has_start_routine=self._has_start_routine)

    @cached_property
    def _has_start_routine(self) -> bool:
        """Say whether it is known which function all threads of this process start in, as since Windows Vista."""
        symbols = self._code.symbols
        for image in self._code.images:
            if image.module.label.lower() == _NTDLL:
                table = symbols.table(image)
                if table.kind is not SymbolKind.EXPORT and any(table.rva_of(name) for name in _SINCE_VISTA):
                    return True
        return False
