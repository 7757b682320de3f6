# SPDX-License-Identifier: Apache-2.0
"""Recognizes the outermost frames of x86 stacks: those whose return address of 0 is not an overwritten one.

`throwstack.unwind.thread_start` explains the question. Before Windows Vista the kernel starts threads in
BaseThreadStart and BaseProcessStart of kernel32, or right in a routine of the program, and the outermost frame is at
the very base of the stack. Since Vista it starts them in RtlUserThreadStart of ntdll, at a random distance from it.
Fibers start in BaseFiberStart and RtlUserFiberStart.
"""

from __future__ import annotations

from functools import cached_property

from throwstack.core.frames import StackBounds
from throwstack.core.registers import BP
from throwstack.images.image import Image
from throwstack.names.symbols import Name, SymbolKind
from throwstack.unwind.thread_start import FIRST_CALLED, START_ROUTINES, SYSTEM_MODULES, StackEnds
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.code import Code

_NTDLL, _KERNEL32 = "ntdll", "kernel32"
_SINCE_VISTA = ("_RtlUserThreadStart", "RtlUserThreadStart")
_BEFORE_VISTA = frozenset({"BaseThreadStart", "BaseProcessStart", "BaseFiberStart"})
_BEGINS = START_ROUTINES | {"_RtlUserThreadStart"} | _BEFORE_VISTA
_INITIALIZES = "LdrInitializeThunk"
"""Since Vista the kernel starts a thread here that has DLLs to initialize. Before, KiUserApcDispatcher calls it."""
_CALLED = {_KERNEL32: FIRST_CALLED, _NTDLL: "__RtlUserThreadStart"}
"""Functions that the start routine of Vista and later has called, by module."""


class OutermostFrames:
    """Recognizes the outermost frames of one address space."""

    def __init__(self, code: Code, ends: StackEnds) -> None:
        """`code` is the address space's code; `ends` knows where its stacks end."""
        self._code = code
        self._ends = ends

    def is_start_routine(self, place: Place) -> bool:
        """Say whether the function at `place` is one in which the kernel starts threads, and which nobody calls."""
        name = self._name(place)
        if name.symbol == _INITIALIZES and not self._is_since_vista:
            return False
        return name.is_certain and name.symbol in _BEGINS

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
        image = self._code.images.find(place.ip)
        label = "" if image is None else image.module.label.lower()
        return self._ends.is_outermost(
            caller.slot,
            stack,
            has_caller=self._is_native or self._is_system_function(place, label),
            is_library_s=(self._is_since_vista or self._may_be_since_vista) and label != _NTDLL,
        )

    def _is_system_function(self, place: Place, label: str) -> bool:
        """Say whether the function at `place`, no start routine, is one of Windows in which no stack begins.

        `label` is its module. In ntdll its name must be certain.
        """
        name = self._name(place)
        if name.is_certain and _CALLED.get(label) == name.symbol:
            return True
        if label not in SYSTEM_MODULES or not self._is_since_vista:
            return False
        return label != _NTDLL or (self._knows_names and name.is_certain)

    def _name(self, place: Place) -> Name:
        return self._code.symbols.name(place.ip, is_return_address=place.is_return_address)

    @cached_property
    def _is_since_vista(self) -> bool:
        symbols = self._code.symbols
        return any(symbols.rva_of(image, name) for image in self._images(_NTDLL) for name in _SINCE_VISTA)

    @cached_property
    def _may_be_since_vista(self) -> bool:
        """Say whether exports of ntdll that are not in the dump may be those of a Windows since Vista."""
        return any(image.exports.may_lack(name) for image in self._images(_NTDLL) for name in _SINCE_VISTA)

    @cached_property
    def _is_native(self) -> bool:
        """Say whether all threads of this process start in RtlUserThreadStart, and none is a fiber of kernel32.

        With exports only, the start routine has no name: RtlUserThreadStart jumps to a function that is not exported.
        """
        return not self._images(_KERNEL32) and self._is_since_vista and self._knows_names

    @cached_property
    def _knows_names(self) -> bool:
        return any(self._code.symbols.table(image).kind is not SymbolKind.EXPORT for image in self._images(_NTDLL))

    def _images(self, label: str) -> list[Image]:
        return [image for image in self._code.images if image.module.label.lower() == label]
