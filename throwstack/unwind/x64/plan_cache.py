# SPDX-License-Identifier: Apache-2.0
"""Caches the unwind plan of each address, one for a frame that has called and one for a frame that was interrupted."""

from __future__ import annotations

from dataclasses import replace

from throwstack.core.frames import End
from throwstack.core.stop import Stop
from throwstack.images.image import ImageMap
from throwstack.unwind.after_call import is_after_call
from throwstack.unwind.x64.epilogue import EpilogueDecoder
from throwstack.unwind.x64.functions import Function, Functions
from throwstack.unwind.x64.unwind_plan import LEAF, UnwindPlan, compile_codes

_MAX_PLANS = 1 << 16

Planned = UnwindPlan | Stop | None
"""None if there is no unwind data: code outside the images, or code without an entry that needs one."""


class PlanCache:
    """The plans of one address space."""

    __slots__ = ("_called", "_epilogues", "_functions", "_images", "_interrupted")

    def __init__(self, images: ImageMap, functions: Functions) -> None:
        """`images` have the code, and `functions` its unwind information."""
        self._images = images
        self._functions = functions
        self._epilogues = EpilogueDecoder(functions)
        self._called: dict[int, Planned] = {}
        self._interrupted: dict[int, Planned] = {}

    def called(self, ip: int) -> Planned:
        """Return the plan for a frame that has made a call whose return address is `ip`.

        The stop is `End.BAD_RETURN_ADDRESS` if `ip` is no address of code. There can be generated code outside the
        images, so an address after a call is accepted there.
        """
        try:
            return self._called[ip]
        except KeyError:
            pass
        if len(self._called) >= _MAX_PLANS:
            self._called.clear()
        plan = self._called[ip] = self._plan_called(ip)
        return plan

    def interrupted(self, ip: int) -> Planned:
        """Return the plan for a frame that was interrupted at `ip`; the object `LEAF` if the function has no entry."""
        if ip not in self._interrupted:
            if len(self._interrupted) >= _MAX_PLANS:
                self._interrupted.clear()
            self._interrupted[ip] = self._plan_interrupted(ip)
        return self._interrupted[ip]

    def _plan_called(self, ip: int) -> Planned:
        image = self._images.find(ip - 1)
        if image is None and is_after_call(self._images.memory, ip):
            return None
        if image is None or not image.is_code(ip - 1):
            return Stop(End.BAD_RETURN_ADDRESS, f"{ip:#x}")
        function = self._functions.find(ip - 1)
        if isinstance(function, Function):
            return _with_note(compile_codes(function, ip - function.base), function.note)
        return function

    def _plan_interrupted(self, ip: int) -> Planned:
        if not self._images.is_code(ip):
            return None
        function = self._functions.find(ip)
        if function is None:
            return LEAF
        if isinstance(function, Stop):
            return function
        rva = ip - function.base
        if not self._functions.code(ip, 1):
            return _with_note(compile_codes(function, rva), function.note, "code not readable, taken for no epilogue")
        return _with_note(self._epilogues.plan(function, rva) or compile_codes(function, rva), function.note)


def _with_note(plan: UnwindPlan | Stop, *notes: str) -> UnwindPlan | Stop:
    note = "; ".join(note for note in notes if note)
    return replace(plan, note=note) if note and isinstance(plan, UnwindPlan) else plan
