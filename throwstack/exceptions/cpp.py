# SPDX-License-Identifier: Apache-2.0
"""C++ exceptions of Visual C++ (0xE06D7363, "msc"): the thrown type, its bases, and the value of the object.

Parameters, as `_CxxThrowException` passes them: a magic number, the object, its ThrowInfo, and on x64 the base of the
image that has the ThrowInfo. `throw;` passes neither object nor ThrowInfo. Rust programs for MSVC targets throw a panic
in the same way, with a type called `rust_panic`.
"""

from __future__ import annotations

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.text import with_marked_quotes
from throwstack.exceptions.model import ExceptionKind, ExceptionText, RaisedException
from throwstack.exceptions.throw_info import ThrowInfo, read_throw_info
from throwstack.exceptions.thrown_object import ObjectText, ThrownObject, read_object

CPP = 0xE06D7363
_MAGICS = frozenset({0x19930520, 0x19930521, 0x19930522, 0x01994000})
_RUST_PANIC = "rust_panic"


def cpp_exception(raised: RaisedException) -> ExceptionText:
    """Describe a C++ exception by the parts of its ThrowInfo and its object that are in memory."""
    wanted = 3 if raised.arch is Arch.X86 else 4
    if len(raised.record.parameters) < wanted or raised.parameter(0) not in _MAGICS:
        return ExceptionText(
            ExceptionKind.CPP, "C++ exception", details=("its parameters are not those of a C++ throw",)
        )
    where, info_address = raised.parameter(1), raised.parameter(2)
    if not info_address:
        return ExceptionText(
            ExceptionKind.CPP, "C++ rethrow", details=("`throw;` names no object: the exception is the one before it",)
        )
    info = read_throw_info(raised.memory, raised.arch, info_address, raised.parameter(3))
    details = _details(raised, info, info_address)
    if not info.types:
        return ExceptionText(ExceptionKind.CPP, "C++ exception of unknown type", details=tuple(details))
    if info.types[0].raw_name == _RUST_PANIC:
        return ExceptionText(ExceptionKind.RUST, "Rust panic", thrown_type=_RUST_PANIC, details=tuple(details))
    try:
        found = read_object(ThrownObject(raised.memory, raised.arch, where, info.types))
    except MemoryUnreadable:
        found = ObjectText(notes=("the thrown object is not in memory",))
    return _text(info, found, details)


def _text(info: ThrowInfo, found: ObjectText, details: list[str]) -> ExceptionText:
    name = info.types[0].name
    title = f"C++ {with_marked_quotes(name)}"
    if found.value:
        title += f" {found.value}"
    if found.status is not None:
        title += f", HRESULT {found.status}"
    return ExceptionText(
        ExceptionKind.CPP,
        title,
        thrown_type=name,
        bases=tuple(item.name for item in info.types[1:]),
        message=found.message,
        hresult=None if found.status is None else found.status.code,
        details=(*details, *found.notes),
    )


def _details(raised: RaisedException, info: ThrowInfo, info_address: int) -> list[str]:
    details = []
    if info.note:
        owner = raised.images.find(info_address)
        of = f" of {raised.place(owner.base).removesuffix('+0x0')}" if owner is not None else ""
        details.append(f"{info.note}{of}")
    if len(info.types) > 1:
        details.append("bases: " + ", ".join(item.name for item in info.types[1:]))
    return details
