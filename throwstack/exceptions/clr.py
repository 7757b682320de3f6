# SPDX-License-Identifier: Apache-2.0
"""Exceptions of managed code: 0xE0434352 ("CCR", CLR 4 and .NET) and 0xE0434F4D ("COM", CLR 1 to 3.5).

The record has little: the first parameter is the exception's HRESULT, and with CLR 4 the last of five is the base of
the runtime module that threw. Type and message are in the exception object, which the runtime's memory leads to
(`ManagedThrow`). The HRESULT does not tell the type: a class derived from Exception has its base's HRESULT, and an
application may set any. So without the object, the classes that usually have that HRESULT are a detail, and no type.

Faults of managed code have an object too. A null reference is an access violation that the runtime turns into a
System.NullReferenceException; record and fault address are those of the access violation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from throwstack.core.text import escape, in_quotes, with_marked_quotes
from throwstack.exceptions.model import ExceptionKind, ExceptionText, ManagedThrow, RaisedException
from throwstack.exceptions.status import hresult, managed_exceptions

if TYPE_CHECKING:
    from throwstack.managed.managed_exception import ManagedException

CLR = 0xE0434352
CLR_OLD = 0xE0434F4D
FAIL_FAST = 0x80131623
"""COR_E_FAILFAST: the code of the record that Environment.FailFast makes."""
_RUNTIME_PARAMETER = 4
_MAX_TITLE_MESSAGE = 200
"""The most characters of a message in a title or a detail; `ExceptionText.message` has it whole."""
_MAX_INNER = 16
_EXPERIMENTAL = "what is read of .NET Framework's objects is experimental: no real process of it was at hand"


def clr_exception(raised: RaisedException) -> ExceptionText:
    """Describe a managed exception by its object, or by its HRESULT if the object cannot be read."""
    thrown = raised.managed
    if thrown is not None and thrown.exception is not None:
        return _of_object(raised, thrown, thrown.exception)
    details = [f"the exception object: {escape(thrown.reason)}"] if thrown is not None and thrown.reason else []
    if not raised.record.parameters:
        details.append("the record does not carry its HRESULT")
        return ExceptionText(ExceptionKind.CLR, "CLR exception, type not readable", details=tuple(details))
    code = raised.parameter(0) & 0xFFFFFFFF
    classes = managed_exceptions(code)
    if classes:
        details.append(f"classes that usually have this HRESULT: {', '.join(classes)}")
    details += _thrown_by(raised)
    title = f"CLR exception, HRESULT {hresult(code)}, type not readable"
    return ExceptionText(ExceptionKind.CLR, title, hresult=code, details=tuple(details))


def fail_fast(raised: RaisedException) -> ExceptionText | None:
    """Describe Environment.FailFast by what it was given; None if the exception is another, or without a runtime."""
    thrown, code = raised.managed, raised.record.code
    if code != FAIL_FAST or thrown is None or thrown.reason:
        return None
    plain = ExceptionText(ExceptionKind.FAIL_FAST, f"Environment.FailFast, HRESULT {hresult(code)}", hresult=code)
    runtime = (f"runtime: {thrown.runtime}",) if thrown.runtime else ()
    given = thrown.given
    if given is None:
        return replace(plain, details=("what it was given was not found on the stack", *runtime))
    said = f"Environment.FailFast {quoted_message(given.message)}" if given.message else plain.title
    found = given.exception
    if found is None:
        return replace(plain, title=said, message=given.message, details=runtime)
    return replace(
        plain,
        title=f"{said}: {managed_title(found)}",
        thrown_type=escape(found.type_name),
        bases=_bases(found),
        message=given.message,
        details=tuple(managed_details(thrown, found)),
        managed=found,
    )


def with_managed_object(raised: RaisedException, text: ExceptionText) -> ExceptionText:
    """Return `text`, which describes a fault by its record, with what the exception object of managed code adds.

    Other exceptions than faults keep their own description; the object that managed code sees is a detail then. For
    example, a C++ exception that passes through managed code is a System.Runtime.InteropServices.SEHException there.
    """
    thrown = raised.managed
    if raised.record.code in {CLR, CLR_OLD} or thrown is None:
        return text
    found = thrown.exception
    if found is None:
        reason = [f"the exception object: {escape(thrown.reason)}", *_runtime(thrown)] if thrown.reason else []
        return replace(text, details=(*text.details, *reason))
    if text.kind is not ExceptionKind.HARDWARE_FAULT or not found.type_name or not thrown.is_cause:
        detail = f"managed code sees it as {_said(found)}"
        return replace(text, details=(*text.details, detail, *managed_details(thrown, found)), managed=found)
    return replace(
        text,
        title=f"{_said(found)}, {text.title}",
        thrown_type=escape(found.type_name),
        bases=_bases(found),
        message=found.message or "",
        hresult=found.hresult,
        details=(*text.details, *managed_details(thrown, found)),
        managed=found,
    )


def _of_object(raised: RaisedException, thrown: ManagedThrow, found: ManagedException) -> ExceptionText:
    code = found.hresult
    details = managed_details(thrown, found)
    if code is None and raised.record.parameters:
        code = raised.parameter(0) & 0xFFFFFFFF
    elif raised.record.parameters and code != raised.parameter(0) & 0xFFFFFFFF:
        details.append(f"the record has another HRESULT: {hresult(raised.parameter(0) & 0xFFFFFFFF)}")
    return ExceptionText(
        ExceptionKind.CLR,
        managed_title(found, code),
        thrown_type=escape(found.type_name),
        bases=_bases(found),
        message=found.message or "",
        hresult=code,
        details=(*details, *_thrown_by(raised)),
        managed=found,
    )


def managed_title(found: ManagedException, code: int | None = None) -> str:
    """Return type, message and HRESULT of an exception object; `code` is used if the object's is lost."""
    code = found.hresult if found.hresult is not None else code
    return _said(found) if code is None else f"{_said(found)}, HRESULT {hresult(code)}"


def _said(found: ManagedException) -> str:
    """Return type and message: `System.FormatException "no number in b"`."""
    name = with_marked_quotes(escape(found.type_name)) or "CLR exception, type not readable,"
    return f"{name} {quoted_message(found.message)}" if found.message else name.removesuffix(",")


def quoted_message(message: str) -> str:
    """Return a message as a title has it: in quotation marks, and cut if it is long."""
    return in_quotes(escape(message, _MAX_TITLE_MESSAGE))


def _bases(found: ManagedException) -> tuple[str, ...]:
    return tuple(escape(base) for base in found.bases if base and base != "System.Object")


def managed_details(thrown: ManagedThrow, found: ManagedException) -> list[str]:
    """Return the details on the object: inner exceptions, what could not be read, and which runtime it is of."""
    details = []
    bases = _bases(found)
    if bases and bases != ("System.Exception",):
        details.append(f"bases: {', '.join(bases)}")
    inner = list(_inner(found))
    details += inner[:_MAX_INNER]
    if len(inner) > _MAX_INNER:
        details.append(f"and {len(inner) - _MAX_INNER} more inner exceptions")
    if found.remote_stack:
        details.append("it has a stack that was recorded elsewhere")
    if thrown.tie:
        details.append(thrown.tie)
    reasons = [*(escape(reason) for reason in found.reasons), *_reasons_of_inner(found, found.reasons)]
    return [*details, *reasons, *_runtime(thrown)]


def _runtime(thrown: ManagedThrow) -> list[str]:
    """Return the details on the runtime: which one it is, and that what is read of it is experimental."""
    runtime = [f"runtime: {thrown.runtime}"] if thrown.runtime else []
    return [*runtime, _EXPERIMENTAL] if thrown.is_experimental else runtime


def _inner(found: ManagedException, depth: int = 0) -> Iterator[str]:
    for inner in found.inner:
        yield f"{'inner exception' if not depth else 'its inner exception'}: {managed_title(inner)}"
        yield from _inner(inner, depth + 1)


def _reasons_of_inner(found: ManagedException, said: Sequence[str]) -> list[str]:
    """Return what is missing of the inner exceptions, and why; each reason once, and none of those in `said`."""
    reasons: dict[str, None] = {}
    pending = list(found.inner)
    while pending:
        inner = pending.pop(0)
        pending += inner.inner
        reasons.update(dict.fromkeys(reason for reason in inner.reasons if reason not in said))
    shown = [f"of an inner exception: {escape(reason)}" for reason in list(reasons)[:_MAX_INNER]]
    more = len(reasons) - len(shown)
    return [*shown, f"and {more} more reasons of that kind"] if more else shown


def _thrown_by(raised: RaisedException) -> list[str]:
    if raised.record.code == CLR and len(raised.record.parameters) > _RUNTIME_PARAMETER:
        runtime = raised.images.find(raised.parameter(_RUNTIME_PARAMETER))
        if runtime is not None:
            return [f"thrown by the runtime {raised.place(runtime.base).removesuffix('+0x0')}"]
    return []
