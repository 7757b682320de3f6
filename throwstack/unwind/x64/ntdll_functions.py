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

from throwstack.core.contexts import read_context
from throwstack.core.frames import StackBounds
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch, Registers
from throwstack.images.exports import Exports
from throwstack.images.image import Image, ImageMap
from throwstack.unwind.thread_start import FIRST_CALLED, START_ROUTINES
from throwstack.unwind.x64.functions import Function, Functions

_MAX_KNOWN = 1 << 16
_MODULE = "ntdll.dll"
_KERNEL32 = "kernel32.dll"
_START_ROUTINE = "RtlUserThreadStart"
_DISPATCHERS = ("KiUserExceptionDispatcher", "KiUserExceptionDispatch")
"""The dispatcher's name as exported, and its name in Microsoft's PDBs."""


class NtdllFunctions:
    """Says whether an address is in a start routine, and what KiUserExceptionDispatcher has interrupted."""

    __slots__ = ("_dispatchers", "_functions", "_images", "_native", "_starts")

    def __init__(self, images: ImageMap, functions: Functions) -> None:
        """`images` are the modules of the address space, and `functions` finds their functions."""
        self._images = images
        self._functions = functions
        self._starts: dict[int, bool] = {}
        self._dispatchers: dict[int, bool] = {}
        self._native: bool | None = None

    def has_caller(self, ip: int) -> bool:
        """Say whether the function at `ip` is known to have a caller, so that it is not that of the outermost frame.

        RtlUserThreadStart calls BaseThreadInitThunk of kernel32. In a process that has not loaded kernel32 it calls
        what the thread runs, and then every function but the start routines has a caller. Otherwise functions may be
        the outermost on a stack of their own, which the TEB records (see `throwstack.unwind.thread_start`).
        """
        if self._native is None:
            by_name = {image.module.name.lower(): image for image in self._images}
            ntdll = by_name.get(_MODULE)
            knows_start = ntdll is not None and any(export.name == _START_ROUTINE for export in ntdll.exports)
            self._native = knows_start and _KERNEL32 not in by_name
        image = self._images.find(ip)
        if image is None or image.module.name.lower() != _KERNEL32:
            return self._native
        function = self._functions.find(ip)
        return isinstance(function, Function) and function.begin == image.exports.derived(_first_called)

    def is_thread_start(self, ip: int) -> bool:
        """Say whether `ip` is in a function that the kernel starts, or RtlUserFiberStart, with which a fiber starts.

        Such a function has no caller. The word where its return address would be is not one, whatever its value.
        """
        known = self._starts.get(ip)
        if known is None:
            _keep_small(self._starts)
            image, begin = self._begin(ip)
            known = self._starts[ip] = image is not None and begin in image.exports.derived(_thread_starts)
        return known

    def interrupted(self, registers: Registers, stack: StackBounds) -> Registers | None:
        """Return the registers of the code that an exception interrupted, from the CONTEXT of its dispatcher's frame.

        `registers` are those of the frame. None if the frame is not KiUserExceptionDispatcher's, or if the CONTEXT
        cannot be read, is not plausible, or has a stack pointer that is not further up on `stack`.
        """
        ip = registers.ip
        is_dispatcher = self._dispatchers.get(ip)
        if is_dispatcher is None:
            _keep_small(self._dispatchers)
            image, begin = self._begin(ip)
            is_dispatcher = self._dispatchers[ip] = image is not None and begin == image.exports.derived(_dispatcher)
        if not is_dispatcher:
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

    def _begin(self, ip: int) -> tuple[Image | None, int | None]:
        """Return ntdll's image and the RVA at which the function at `ip` begins.

        Both are None if `ip` is not in ntdll, or if its function is not known.
        """
        image = self._images.find(ip)
        if image is None or image.module.name.lower() != _MODULE:
            return None, None
        function = self._functions.find(ip)
        return (image, function.begin) if isinstance(function, Function) else (None, None)


def _keep_small(known: dict[int, bool]) -> None:
    if len(known) >= _MAX_KNOWN:
        known.clear()


def _thread_starts(exports: Exports) -> frozenset[int]:
    """Return the RVAs of the start routines, which ntdll exports since Vista."""
    return frozenset(export.rva for export in exports if export.name in START_ROUTINES)


def _first_called(exports: Exports) -> int | None:
    return next((export.rva for export in exports if export.name == FIRST_CALLED), None)


def _dispatcher(exports: Exports) -> int | None:
    return next((export.rva for export in exports if export.name in _DISPATCHERS), None)
