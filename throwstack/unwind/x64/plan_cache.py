# SPDX-License-Identifier: Apache-2.0
"""Remembers how to unwind from each address, for a frame that has made a call and for a frame that was interrupted."""

from __future__ import annotations

from dataclasses import replace

from throwstack.core.frames import End
from throwstack.core.stop import Stop
from throwstack.images.image import ImageMap
from throwstack.unwind.after_call import is_after_call
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.x64.epilogue import EpilogueDecoder
from throwstack.unwind.x64.functions import Function, Functions
from throwstack.unwind.x64.unwind_plan import LEAF, UnwindPlan, compile_codes

_MAX_PLANS = 1 << 16

Planned = UnwindPlan | Stop | None
"""An unwind plan, or a `Stop` that says why there is none.

None means that no unwind data covers the address, and that the rule for leaf functions does not apply either: the
address is outside the images' code, or the frame has made a call, which a leaf function does not.
"""


class PlanCache:
    """The unwind plans of one address space."""

    __slots__ = ("_called", "_epilogues", "_functions", "_images", "_interrupted", "_outside")

    def __init__(self, images: ImageMap, functions: Functions, outside: CodeOutside | None = None) -> None:
        """`images` are the modules of the address space, and `functions` finds their functions and unwind data.

        `outside` is what is known of code outside the images.
        """
        self._images = images
        self._outside = outside or CodeOutside(images)
        self._functions = functions
        self._epilogues = EpilogueDecoder(functions)
        self._called: dict[int, Planned] = {}
        self._interrupted: dict[int, Planned] = {}

    def called(self, ip: int) -> Planned:
        """Return the plan for a frame that has made a call whose return address is `ip`.

        If `ip` is not an address of code, the result is a `Stop` with `End.BAD_RETURN_ADDRESS`. Outside the images
        there can be generated code, so an `ip` outside is accepted if code can run there and a call instruction ends
        there. It is also accepted if the page before it is absent and the region is known to be executable.
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
        """Return the plan for a frame that was interrupted at `ip`.

        The result is the object `LEAF` if `ip` is in an image's code but no function entry covers it.
        """
        if ip not in self._interrupted:
            if len(self._interrupted) >= _MAX_PLANS:
                self._interrupted.clear()
            self._interrupted[ip] = self._plan_interrupted(ip)
        return self._interrupted[ip]

    def _plan_called(self, ip: int) -> Planned:
        image = self._images.find(ip - 1)
        is_code = self._can_return_outside(ip) if image is None else image.is_code(ip - 1)
        if not is_code:
            return Stop(End.BAD_RETURN_ADDRESS, f"{ip:#x}")
        function = self._functions.find(ip - 1)
        if isinstance(function, Function):
            return _with_note(compile_codes(function, ip - function.base), function.note)
        return function

    def _can_return_outside(self, ip: int) -> bool:
        is_code, is_call = self._outside.is_code(ip - 1), is_after_call(self._images.memory, ip)
        return is_code is not False and (is_call is True or (is_call is None and is_code is True))

    def _plan_interrupted(self, ip: int) -> Planned:
        is_in_image = self._images.is_code(ip)
        function = self._functions.find(ip)
        if function is None:
            return LEAF if is_in_image else None
        if isinstance(function, Stop):
            return function
        rva = ip - function.base
        if not self._functions.code(ip, 1):
            return _with_note(compile_codes(function, rva), function.note, "code not readable, taken for no epilogue")
        return _with_note(self._epilogues.plan(function, rva) or compile_codes(function, rva), function.note)


def _with_note(plan: UnwindPlan | Stop, *notes: str) -> UnwindPlan | Stop:
    note = "; ".join(note for note in notes if note)
    return replace(plan, note=note) if note and isinstance(plan, UnwindPlan) else plan
