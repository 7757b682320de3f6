# SPDX-License-Identifier: Apache-2.0
"""Exceptions raised by libgcc's unwinder on x64 Windows (0x20474343, "GCC " backwards): C++, Rust and others.

The first parameter is the address of the `_Unwind_Exception`, whose first eight bytes name the language. For C++ the
`_Unwind_Exception` is the last field of a `__cxa_exception` of libstdc++ (unwind-cxx.h), whose first field is the
thrown type's `type_info*`. The thrown object comes after the `__cxa_exception`. The sizes are those of libgcc built for
structured exception handling, where `private_` has six words.
"""

from __future__ import annotations

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.text import ansi_at, escape, in_quotes, with_marked_quotes
from throwstack.exceptions.model import ExceptionKind, ExceptionText, RaisedException
from throwstack.names.demangle import itanium_type_name

GCC_THROW = 0x20474343
GCC_UNWIND = 0x21474343
GCC_FORCED = 0x22474343

_RUST = "Rust panic"
_CPP = b"\0++CCUNG"
_CPP_DEPENDENT = b"\x01++CCUNG"
_LANGUAGES = {
    _CPP: "C++",
    _CPP_DEPENDENT: "C++",
    b"\0++CGNLC": "C++",
    b"MOZ\0RUST": _RUST,
    b"CJBOCUNG": "Objective-C",
    b" adaCUNG": "Ada",
    b"\0\0\0DCUNG": "D",
}
_TYPE_BEFORE_HEADER = 80
_HEADER_SIZE = 64
_WITH_MESSAGE = frozenset(
    f"std::{name}"
    for name in (
        *("logic_error", "domain_error", "invalid_argument", "length_error", "out_of_range"),
        *("runtime_error", "range_error", "overflow_error", "underflow_error"),
    )
)


def gcc_exception(raised: RaisedException) -> ExceptionText:
    """Describe an exception of GCC's runtime: its language, and for C++ the thrown type and message."""
    if not raised.record.parameters:
        return ExceptionText(
            ExceptionKind.GCC, "GCC exception", details=("the record does not point to the exception",)
        )
    header = raised.parameter(0)
    try:
        language = _LANGUAGES.get(raised.memory.read(header, 8), "")
    except MemoryUnreadable:
        return ExceptionText(ExceptionKind.GCC, "GCC exception", details=("the exception object is not in memory",))
    if language != "C++":
        kind = ExceptionKind.RUST if language == _RUST else ExceptionKind.GCC
        return ExceptionText(kind, language or "GCC exception of unknown language")
    if raised.arch is Arch.X86 or raised.memory.read(header, 8) == _CPP_DEPENDENT:
        return ExceptionText(ExceptionKind.GCC, "C++ exception (GCC)")
    try:
        name = _type_name(raised, header)
    except MemoryUnreadable:
        return ExceptionText(ExceptionKind.GCC, "C++ exception (GCC)", details=("its type is not in memory",))
    message = _message(raised, header) if name in _WITH_MESSAGE else ""
    title = f"C++ {with_marked_quotes(name)}"
    title = f"{title} {in_quotes(message)} (GCC)" if message else f"{title} (GCC)"
    return ExceptionText(ExceptionKind.GCC, title, thrown_type=name, message=message)


def _type_name(raised: RaisedException, header: int) -> str:
    type_info = raised.pointer(header - _TYPE_BEFORE_HEADER)
    raw = ansi_at(raised.memory, raised.pointer(type_info + 8), 512).removeprefix("*")
    return escape(itanium_type_name(raw) or raw, 512)


def _message(raised: RaisedException, header: int) -> str:
    """Return the message of a thrown standard exception, or "" if it is not in memory.

    In libstdc++ the object has a pointer to the text after the vtable pointer.
    """
    try:
        return ansi_at(raised.memory, raised.pointer(header + _HEADER_SIZE + 8))
    except MemoryUnreadable:
        return ""
