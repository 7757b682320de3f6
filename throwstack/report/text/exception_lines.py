# SPDX-License-Identifier: Apache-2.0
"""An exception: its record as figures, what explains it, its inner exceptions, and the stack that it recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from throwstack.core.text import in_quotes
from throwstack.report.crash_report import ExceptionReport, InnerException
from throwstack.report.frame_report import FrameReport
from throwstack.report.text.spelling import address, bare_address, count
from throwstack.report.text.text_lines import Line, Tone, below, labelled

_MAX_INNER = 32
_MAX_LOGICAL = 64
REPEATED = ("inner exception", "its inner exception", "code 0x", "bases: ")
"""How details begin that repeat what these lines say in another way."""


def record_lines(exception: ExceptionReport, *, is_64bit: bool) -> Iterator[Line]:
    """Yield what `.exr` shows of the record, and the sentences that explain the exception."""
    parts = [f"code {exception.code:08x}", f"flags {exception.flags:x}"]
    parts.append(f"raised at {address(exception.address, is_64bit=is_64bit)}")
    if exception.parameters:
        words = " ".join(address(value, is_64bit=is_64bit) for value in exception.parameters)
        parts.append(f"{count(len(exception.parameters), 'parameter')} {words}")
    yield labelled("Record", f"{_place(exception.record_address, is_64bit=is_64bit)}{', '.join(parts)}")
    if exception.object_address is not None:
        yield below(f"exception object {address(exception.object_address, is_64bit=is_64bit)}  (!pe in WinDbg's SOS)")
    if exception.bases:
        yield below(f"can be caught as {', '.join(exception.bases)}")
    for detail in exception.details:
        if not detail.startswith(REPEATED):
            yield below(detail)
    yield from inner_lines(exception.inner, is_64bit=is_64bit)


def context_lines(exception: ExceptionReport, *, is_64bit: bool) -> Iterator[Line]:
    """Yield where the CONTEXT is that the registers are from, and how it was found."""
    if exception.context_address is not None:
        agreed = f"found by {count(len(exception.routes), 'route')}: {exception.found_by}"
        yield labelled("Context", f"{bare_address(exception.context_address, is_64bit=is_64bit)}: {agreed}")
    elif exception.routes:
        yield labelled("Context", f"the registers are in no CONTEXT record; found by {exception.found_by}")


def _place(at: int | None, *, is_64bit: bool) -> str:
    return "" if at is None else f"{bare_address(at, is_64bit=is_64bit)}: "


def inner_lines(inner: Sequence[InnerException], *, is_64bit: bool) -> Iterator[Line]:
    """Yield the inner exceptions and their own ones, each with the stack that it recorded, at most 32 of them."""
    pending = [(1, one) for one in reversed(inner)]
    shown = 0
    while pending and shown < _MAX_INNER:
        depth, one = pending.pop()
        pending += [(depth + 1, further) for further in reversed(one.inner)]
        shown += 1
        mark = "  " * (depth - 1)
        yield labelled("Inner", f"{mark}{_inner_title(one, is_64bit=is_64bit)}")
        for frame in one.logical_stack[:_MAX_LOGICAL]:
            yield below(f"{mark}  at {frame.name}", Tone.FAINT)
    if pending:
        yield below(f"and {count(len(pending), 'further inner exception')}")


def _inner_title(one: InnerException, *, is_64bit: bool) -> str:
    if not one.type:
        code = "" if one.code is None else f"exception {one.code:08x}"
        at = "" if one.address is None else f" raised at {address(one.address, is_64bit=is_64bit)}"
        return f"{code}{at}"
    said = f" {in_quotes(one.message)}" if one.message else ""
    status = "" if one.hresult is None else f", HRESULT {one.hresult:08x}"
    at = "" if one.address is None else f", object {address(one.address, is_64bit=is_64bit)}"
    return f"{one.type}{said}{status}{at}"


def logical_lines(frames: Sequence[FrameReport]) -> Iterator[Line]:
    """Yield the stack that the object of a .NET exception recorded; nothing if it recorded none."""
    if not frames:
        return
    yield Line()
    yield Line("  The stack that the exception object recorded", Tone.HEADING)
    for frame in frames[:_MAX_LOGICAL]:
        yield Line(f"     at {frame.name}", Tone.PLAIN, 10)
        if frame.note:
            yield Line(f"        {frame.note}", Tone.FAINT, 10)
    if len(frames) > _MAX_LOGICAL:
        yield Line(f"     and {count(len(frames) - _MAX_LOGICAL, 'further frame')}", Tone.FAINT)
