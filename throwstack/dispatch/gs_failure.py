# SPDX-License-Identifier: Apache-2.0
"""Finds the record and CONTEXT that a module saves in its own global variables if a stack cookie was overwritten.

`__report_gsfailure` and similar functions (gs_report.c of the C runtime's source) fill in GS_ExceptionRecord and
GS_ContextRecord, and pass their addresses to UnhandledExceptionFilter. Both are global variables of the C runtime. Each
module that is statically linked with the C runtime has its own.
"""

from __future__ import annotations

from throwstack.core.frames import Frame, StackBounds
from throwstack.dispatch.saved_exception import Route, SavedException, saved_exception
from throwstack.images.image import Image
from throwstack.names.blockers import BlockerKind, blocker_named
from throwstack.names.symbols import Name
from throwstack.unwind.target import Target


def from_gs_failure_frame(target: Target, stack: StackBounds, frame: Frame, name: Name) -> SavedException | None:
    """Return the exception that the module of `frame` saved in its global variables, or None.

    `name` is the name of the frame's function. The result is None unless this function reports overwritten stack
    cookies.
    """
    blocker = blocker_named(name.module, name.symbol)
    image = target.images.find(frame.ip)
    if image is None or blocker is None or blocker.kind is not BlockerKind.GS_FAILURE:
        return None
    record, context = (_global(target, image, symbol) for symbol in ("GS_ExceptionRecord", "GS_ContextRecord"))
    if record is None or context is None:
        return None
    return saved_exception(target, stack, record, context, route=Route.GLOBALS, frame_sp=frame.child_sp)


def _global(target: Target, image: Image, symbol: str) -> int | None:
    for name in (symbol, f"_{symbol}"):
        rva = target.symbols.rva_of(image, name)
        if rva is not None:
            return image.base + rva
    return None
