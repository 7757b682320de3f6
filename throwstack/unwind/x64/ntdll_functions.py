# SPDX-License-Identifier: Apache-2.0
"""Recognizes the functions of ntdll that end or change a walk: the start of a thread, and the exception dispatcher.

KiUserExceptionDispatcher is entered with rsp at a CONTEXT of the code that the exception interrupted, and rsp is still
there when the dispatcher calls a function. The unwind data of Windows' ntdll describes its frame as a machine frame, so
that the walk knows that the next frame was interrupted. The unwind data of Wine's ntdll describes the dispatcher as a
function that was called. With that alone, the walk would take the interrupted address for a return address: it would
look for a function one byte too low, and would take a frame in its prologue for a complete one. So the interrupted
registers are read from the CONTEXT.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cached_property

from throwstack.core.contexts import read_context
from throwstack.core.frames import StackBounds
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch, Registers
from throwstack.core.stop import Stop
from throwstack.images.exports import Exports
from throwstack.images.image import Image, ImageMap
from throwstack.unwind.thread_start import FIRST_CALLED, START_ROUTINES, SYSTEM_MODULES
from throwstack.unwind.x64.functions import Function, Functions

_MAX_KNOWN = 1 << 16
_MODULE = "ntdll.dll"
_KERNEL32 = "kernel32.dll"
_START_ROUTINE = "RtlUserThreadStart"
_DISPATCHERS = ("KiUserExceptionDispatcher", "KiUserExceptionDispatch")
"""The dispatcher's name as exported, and its name in Microsoft's PDBs."""


class NtdllRole(Enum):
    """What a function of ntdll means for a walk."""

    THREAD_START = "the kernel starts a thread in it, or a fiber starts in it"
    DISPATCHER = "KiUserExceptionDispatcher"


class NtdllFunctions:
    """Says whether an address is in a start routine, and what KiUserExceptionDispatcher has interrupted.

    `roles` has the role of each address, None for those in other functions.
    """

    def __init__(self, images: ImageMap, functions: Functions) -> None:
        """`images` are the modules of the address space, and `functions` finds their functions."""
        self._images = images
        self._functions = functions
        self.roles = _Roles(self._role)

    @cached_property
    def is_native(self) -> bool:
        """Say whether the process has not loaded kernel32: it has no fibers, and threads call what they run.

        Then every function but the start routines has a caller on a thread's stack.
        """
        return self._knows_start and not any(image.module.name.lower() == _KERNEL32 for image in self._images)

    def is_system_function(self, ip: int) -> bool:
        """Say whether `ip`, which is in no start routine, is in a function of Windows in which no stack begins.

        That is so since Vista, and anyway for BaseThreadInitThunk. In ntdll, the function table must be readable, so
        that it is certain that the function is no start routine.
        """
        image = self._images.find(ip)
        if image is None or image.module.label.lower() not in SYSTEM_MODULES:
            return False
        function = self._functions.find(ip)
        if self._knows_start:
            return image.module.name.lower() != _MODULE or not isinstance(function, Stop)
        if image.module.name.lower() != _KERNEL32 or not isinstance(function, Function):
            return False
        return function.begin == image.exports.derived(_first_called)

    def is_library_s(self, ip: int) -> bool:
        """Say whether only a library can have laid out a stack that begins in the function at `ip`, outside of ntdll.

        That is so since Vista, whose ntdll exports the routine in which threads start. If its exports are not in the
        dump, it may be such an ntdll.
        """
        image = self._images.find(ip)
        return (self._knows_start or self._may_export_start) and (image is None or image.module.name.lower() != _MODULE)

    @cached_property
    def _knows_start(self) -> bool:
        return self._ntdll is not None and any(export.name == _START_ROUTINE for export in self._ntdll.exports)

    @cached_property
    def _may_export_start(self) -> bool:
        return self._ntdll is not None and self._ntdll.exports.may_lack(_START_ROUTINE)

    @cached_property
    def _ntdll(self) -> Image | None:
        return next((image for image in self._images if image.module.name.lower() == _MODULE), None)

    def is_thread_start(self, ip: int) -> bool:
        """Say whether `ip` is in a function that the kernel starts, or RtlUserFiberStart, with which a fiber starts.

        Such a function has no caller. The word where its return address would be is not one, whatever its value.
        """
        return self.roles[ip] is NtdllRole.THREAD_START

    def interrupted(self, registers: Registers, stack: StackBounds) -> Registers | None:
        """Return the registers of the code that an exception interrupted, from the CONTEXT of its dispatcher's frame.

        `registers` are those of the frame. None if the frame is not KiUserExceptionDispatcher's, or if the CONTEXT
        cannot be read, is not plausible, or has a stack pointer that is not further up on `stack`.
        """
        if self.roles[registers.ip] is not NtdllRole.DISPATCHER:
            return None
        sp = registers.sp
        try:
            context = read_context(self._images.memory, sp, Arch.X64)
        except MemoryUnreadable:
            return None
        is_above = sp < context.registers.sp and stack.contains(context.registers.sp)
        if not (is_above and context.has_plausible_flags and context.has_user_selectors):
            return None
        return context.registers

    def _role(self, ip: int) -> NtdllRole | None:
        image, begin = self._begin(ip)
        if image is None or begin is None:
            return None
        if begin in image.exports.derived(_thread_starts):
            return NtdllRole.THREAD_START
        return NtdllRole.DISPATCHER if begin == image.exports.derived(_dispatcher) else None

    def _begin(self, ip: int) -> tuple[Image | None, int | None]:
        """Return ntdll's image and the RVA at which the function at `ip` begins.

        Both are None if `ip` is not in ntdll, or if its function is not known.
        """
        image = self._images.find(ip)
        if image is None or image.module.name.lower() != _MODULE:
            return None, None
        function = self._functions.find(ip)
        return (image, function.begin) if isinstance(function, Function) else (None, None)


class _Roles(dict[int, "NtdllRole | None"]):
    """The roles of addresses, each found when it is first asked for."""

    def __init__(self, find: Callable[[int], NtdllRole | None]) -> None:
        """`find` returns the role of an address."""
        super().__init__()
        self._find = find

    def __missing__(self, ip: int) -> NtdllRole | None:
        """Find the role of `ip`, and keep it."""
        if len(self) >= _MAX_KNOWN:
            self.clear()
        found = self[ip] = self._find(ip)
        return found


def _thread_starts(exports: Exports) -> frozenset[int]:
    """Return the RVAs of the start routines, which ntdll exports since Vista."""
    return frozenset(export.rva for export in exports if export.name in START_ROUTINES)


def _first_called(exports: Exports) -> int | None:
    return next((export.rva for export in exports if export.name == FIRST_CALLED), None)


def _dispatcher(exports: Exports) -> int | None:
    return next((export.rva for export in exports if export.name in _DISPATCHERS), None)
