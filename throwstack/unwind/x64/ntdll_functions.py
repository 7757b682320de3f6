# SPDX-License-Identifier: Apache-2.0
"""The functions of ntdll that a walk has to recognize: the start of a thread, and the exception dispatcher.

KiUserExceptionDispatcher is entered with rsp at a CONTEXT of the code that the exception interrupted, and rsp is there
when it calls. Windows describes its frame as a machine frame, so that the walk knows that the code outside was
interrupted. Wine describes it as a function that was called. Then the walk would look for the function of a return
address, one byte too low, and would take a frame in its prologue for a complete one. So the CONTEXT is read there.
"""

from __future__ import annotations

from throwstack.core.contexts import read_context
from throwstack.core.frames import StackBounds
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch, Registers
from throwstack.images.exports import Exports
from throwstack.images.image import Image, ImageMap
from throwstack.unwind.x64.functions import Function, Functions

_MAX_KNOWN = 1 << 16
_MODULE = "ntdll.dll"
_DISPATCHERS = ("KiUserExceptionDispatcher", "KiUserExceptionDispatch")
"""As exported, and as Microsoft's PDBs say."""


class NtdllFunctions:
    """Says of addresses whether they are in one of these functions."""

    __slots__ = ("_dispatchers", "_functions", "_images", "_starts")

    def __init__(self, images: ImageMap, functions: Functions) -> None:
        """`images` are those of the address space, `functions` their functions."""
        self._images = images
        self._functions = functions
        self._starts: dict[int, bool] = {}
        self._dispatchers: dict[int, bool] = {}

    def is_thread_start(self, ip: int) -> bool:
        """Say whether `ip` is in RtlUserThreadStart, with which every thread of a user process starts.

        The word above its frame is no return address, whatever it looks like.
        """
        if ip not in self._starts:
            _keep_small(self._starts)
            image, begin = self._begin(ip)
            self._starts[ip] = image is not None and begin == image.exports.derived(_thread_start)
        return self._starts[ip]

    def interrupted(self, registers: Registers, stack: StackBounds) -> Registers | None:
        """Return the registers that KiUserExceptionDispatcher, at `registers`, interrupted; None for other frames."""
        ip, sp = registers.ip, registers.sp
        if ip not in self._dispatchers:
            _keep_small(self._dispatchers)
            image, begin = self._begin(ip)
            self._dispatchers[ip] = image is not None and begin == image.exports.derived(_dispatcher)
        if not self._dispatchers[ip]:
            return None
        try:
            context = read_context(self._images.memory, sp, Arch.X64)
        except MemoryUnreadable:
            return None
        is_above = sp < context.registers.sp and stack.contains(context.registers.sp)
        if not (is_above and context.has_plausible_flags and context.has_user_selectors):
            return None
        return context.registers

    def _begin(self, ip: int) -> tuple[Image | None, int | None]:
        """Return ntdll and the RVA at which the function at `ip` begins; None for the image if that is not ntdll."""
        image = self._images.find(ip)
        if image is None or image.module.name.lower() != _MODULE:
            return None, None
        function = self._functions.find(ip)
        return (image, function.begin) if isinstance(function, Function) else (None, None)


def _keep_small(known: dict[int, bool]) -> None:
    if len(known) >= _MAX_KNOWN:
        known.clear()


def _thread_start(exports: Exports) -> int | None:
    """Return the RVA of RtlUserThreadStart, which ntdll exports since Vista."""
    return next((export.rva for export in exports if export.name == "RtlUserThreadStart"), None)


def _dispatcher(exports: Exports) -> int | None:
    return next((export.rva for export in exports if export.name in _DISPATCHERS), None)
