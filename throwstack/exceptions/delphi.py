# SPDX-License-Identifier: Apache-2.0
"""Exceptions of Delphi (0x0EEDFADE): the class of the exception object and its message.

The second parameter is the address of the object. Its first word points to the class's method table. System.pas puts a
pointer to the table itself, and one to the class's name (a ShortString), below that table. How far below depends on the
version of Delphi. The distances of all versions are tried, and the right one is that at which there is a pointer to the
table itself. The message is `Exception`'s first field: an AnsiString before Delphi 2009, a UnicodeString since. The
length of such a string is stored in front of its characters.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.text import LIMIT, decode_ansi, decode_wide, escape, in_quotes, with_marked_quotes
from throwstack.exceptions.model import ExceptionKind, ExceptionText, RaisedException

DELPHI = 0x0EEDFADE
DELPHI_OLD = 0x0EEDFACE
_NAME_LIMIT = 255
_MAX_MESSAGE = 1 << 20


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where one version of Delphi puts what is needed to describe an exception.

    `self_pointer` and `class_name` are how far below a method table, in bytes, the pointer to the table itself and the
    pointer to the class name are. `is_wide` says whether the message is UTF-16.
    """

    arch: Arch
    self_pointer: int
    class_name: int
    is_wide: bool


_LAYOUTS = (
    _Layout(Arch.X86, 76, 44, is_wide=False),
    _Layout(Arch.X86, 88, 56, is_wide=True),
    _Layout(Arch.X64, 176, 112, is_wide=True),
    _Layout(Arch.X64, 200, 136, is_wide=True),
)


def delphi_exception(raised: RaisedException) -> ExceptionText:
    """Describe a Delphi exception by the class and the message of its object, if the object is in memory."""
    if len(raised.record.parameters) < 2:
        return ExceptionText(
            ExceptionKind.DELPHI, "Delphi exception", details=("the record does not point to the exception object",)
        )
    where = raised.parameter(1)
    try:
        table = raised.pointer(where)
        layout = _layout(raised, table)
        if layout is None:
            return ExceptionText(
                ExceptionKind.DELPHI,
                "Delphi exception",
                details=("the class of the exception object was not recognised",),
            )
        name = _short_string(raised, raised.pointer(table - layout.class_name))
    except MemoryUnreadable:
        return ExceptionText(
            ExceptionKind.DELPHI, "Delphi exception", details=("the exception object is not in memory",)
        )
    try:
        message = _message(raised, where, layout.is_wide)
    except MemoryUnreadable:
        return ExceptionText(
            ExceptionKind.DELPHI, f"Delphi {name}", thrown_type=name, details=("its message is not in memory",)
        )
    title = f"Delphi {with_marked_quotes(name)}"
    title = f"{title} {in_quotes(message)}" if message else title
    return ExceptionText(ExceptionKind.DELPHI, title, thrown_type=name, message=message)


def _layout(raised: RaisedException, table: int) -> _Layout | None:
    for layout in _LAYOUTS:
        if layout.arch is not raised.arch or table < layout.self_pointer:
            continue
        try:
            if raised.pointer(table - layout.self_pointer) == table:
                return layout
        except MemoryUnreadable:
            continue
    return None


def _short_string(raised: RaisedException, address: int) -> str:
    length = raised.memory.u8(address)
    return escape(decode_ansi(raised.memory.read(address + 1, length)), _NAME_LIMIT)


def _message(raised: RaisedException, where: int, is_wide: bool) -> str:
    text = raised.pointer(where + raised.arch.pointer_size)
    if not text:
        return ""
    length = raised.memory.u32(text - 4)
    if length > _MAX_MESSAGE:
        return ""
    data = raised.memory.read(text, min(length, LIMIT) * (2 if is_wide else 1))
    shown = escape(decode_wide(data) if is_wide else decode_ansi(data))
    return shown + "…" if length > LIMIT and not shown.endswith("…") else shown
