# SPDX-License-Identifier: Apache-2.0
"""Reports on exception objects of .NET: their inner exceptions, and the stacks that they recorded.

The recorded stack is the logical one. It goes on where a physical stack ends: an exception that is awaited or thrown
anew keeps the frames of where it was thrown first. The last frame of such an earlier stack has a note, as the runtime
prints a line there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from throwstack.core.text import escape
from throwstack.managed.process_code import module_of, text_of
from throwstack.names.symbols import Name, SymbolKind, Symbols
from throwstack.report.crash_report import ExceptionReport, InnerException
from throwstack.report.frame_report import WHOLE, FrameReport
from throwstack.report.values import Hexadecimal, hexadecimal

if TYPE_CHECKING:
    from throwstack.managed.managed_exception import ManagedException, ManagedFrame

RECORDED = "recorded"
"""The trust of a frame that the exception object has recorded."""
END_OF_EARLIER_STACK = "end of stack trace from previous location"


def inner_exceptions(found: ManagedException, symbols: Symbols) -> tuple[InnerException, ...]:
    """Return the reports on the inner exceptions of `found`, each with its own ones."""
    return tuple(
        InnerException(
            address=Hexadecimal(inner.address),
            type=escape(inner.type_name, WHOLE),
            message=inner.message or "",
            hresult=hexadecimal(inner.hresult),
            inner=inner_exceptions(inner, symbols),
            logical_stack=logical_stack(inner, symbols),
        )
        for inner in found.inner
    )


def logical_stack(found: ManagedException, symbols: Symbols) -> tuple[FrameReport, ...]:
    """Return the frames that the exception object has recorded, innermost first, as the runtime itself prints them.

    Frames that the runtime hides (helpers that throw) are left out, but not the outermost one.
    """
    shown: list[ManagedFrame] = []
    for index, frame in enumerate(found.stack):
        if not frame.method.is_hidden or index == len(found.stack) - 1:
            shown.append(frame)
        elif frame.is_end_of_earlier_stack and shown:
            shown[-1] = replace(shown[-1], is_end_of_earlier_stack=True)
    return tuple(_recorded(number, frame, symbols) for number, frame in enumerate(shown))


def objects_of(report: ExceptionReport) -> Iterator[int]:
    """Yield the addresses of the exception object in `report` and of all its inner ones."""
    if report.object_address is not None:
        yield report.object_address
    pending = list(report.inner)
    while pending:
        inner = pending.pop()
        pending += inner.inner
        if inner.address is not None:
            yield inner.address


def names_of_stack(frames: Sequence[FrameReport]) -> list[Name]:
    """Return the names of the frames of a logical stack, for `Thrown At` and the signature."""
    return [Name(frame.ip, frame.module, frame.function, frame.offset, SymbolKind.CLR) for frame in frames]


def _recorded(number: int, frame: ManagedFrame, symbols: Symbols) -> FrameReport:
    method, ip = frame.method, frame.ip + frame.is_before_return
    at = symbols.name(ip, is_return_address=True) if ip else Name(0)
    name = Name(ip, module_of(method) or at.module, method.original or text_of(method), kind=SymbolKind.CLR)
    if at.kind is SymbolKind.CLR and at.symbol == text_of(method):
        name = replace(name, module=at.module, offset=at.offset)
    notes = [method.reason] if method.reason else []
    if at.reason and at.reason != method.reason:
        notes.append(f"offset not known: {at.reason}")
    if method.original:
        notes.append(f"compiled as {method.name}")
    if frame.is_end_of_earlier_stack:
        notes.append(END_OF_EARLIER_STACK)
    return FrameReport(
        number=number,
        ip=Hexadecimal(ip),
        sp=Hexadecimal(frame.sp),
        name=escape(str(name), WHOLE),
        trust=RECORDED,
        module=escape(name.module, WHOLE),
        function=escape(name.symbol, WHOLE),
        offset=name.offset,
        symbols=SymbolKind.CLR.value if name.symbol else "",
        note=escape("; ".join(notes), WHOLE),
    )
