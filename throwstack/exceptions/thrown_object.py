# SPDX-License-Identifier: Apache-2.0
"""Reads the value of a thrown C++ object, for types whose layout is known. `read_object` tries these types in turn.

- `std::exception` of each Visual C++ from 2005 on: a vftable pointer, then `char const* what`. In 2005 and 2008 `what`
  is null in `runtime_error` and `logic_error`; these have a `std::string` after it, and are larger by its size.
- `_com_error` (comdef.h): a vftable pointer, an HRESULT, an IErrorInfo*.
- ATL's `CAtlException`: an HRESULT.
- `std::string` (xstring): a buffer of 16 bytes or a pointer, size, capacity. Before 2010 a pointer comes first.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.text import LIMIT, ansi_at, decode_ansi, decode_wide, escape, in_quotes, wide_at
from throwstack.exceptions.status import Status, hresult
from throwstack.exceptions.throw_info import CatchableType


@dataclass(frozen=True, slots=True)
class ObjectText:
    """The value of a thrown object, in words.

    `value` is for the title of the description (`42`, `"disk full"`). `message` is the text alone. `status` is the
    HRESULT that the object has, or None. `notes` say what could not be read.
    """

    value: str = ""
    message: str = ""
    status: Status | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ThrownObject:
    """A thrown object: its `address` in `memory`, and the types as which it can be caught, its own type first."""

    memory: Memory
    arch: Arch
    address: int
    types: tuple[CatchableType, ...]

    def pointer(self, address: int) -> int:
        """Return the pointer that is stored at `address`."""
        return self.memory.pointer(address, self.arch.pointer_size)

    def base(self, *raw_names: str) -> CatchableType | None:
        """Return the first of the object's types whose decorated name is one of `raw_names`, or None."""
        return next((item for item in self.types if item.raw_name in raw_names), None)

    def part(self, *raw_names: str) -> int | None:
        """Return the address of the part of the object (itself or a base) whose type is one of `raw_names`, or None.

        `raw_names` are decorated names.
        """
        base = self.base(*raw_names)
        return None if base is None else base.find(self.memory, self.arch, self.address)


def read_object(thrown: ThrownObject) -> ObjectText:
    """Return the value of the object, which is empty if its type is not known; raises `MemoryUnreadable`."""
    for reader in _READERS:
        found = reader(thrown)
        if found is not None:
            return found
    return ObjectText()


def _com_error(thrown: ThrownObject) -> ObjectText | None:
    part = thrown.part(".?AV_com_error@@")
    if part is None:
        return None
    return ObjectText(status=hresult(thrown.memory.u32(part + thrown.arch.pointer_size)))


def _atl_exception(thrown: ThrownObject) -> ObjectText | None:
    part = thrown.part(".?AVCAtlException@ATL@@")
    return None if part is None else ObjectText(status=hresult(thrown.memory.u32(part)))


def _std_exception(thrown: ThrownObject) -> ObjectText | None:
    part = thrown.part(".?AVexception@std@@", ".?AVexception@@")
    return None if part is None else _what(thrown, part)


def _what(thrown: ThrownObject, part: int) -> ObjectText:
    """Return the message of the `std::exception` at `part`."""
    what = thrown.pointer(part + thrown.arch.pointer_size)
    try:
        message = ansi_at(thrown.memory, what) if what else _old_string(thrown)
    except MemoryUnreadable:
        return ObjectText(notes=("its message is not in memory",))
    return ObjectText(in_quotes(message), message) if message else ObjectText()


def _old_string(thrown: ThrownObject) -> str:
    """Return the `std::string` in a `runtime_error` or `logic_error` of Visual C++ 2005 and 2008.

    The result is "" if the object is none of these.
    """
    base = thrown.base(".?AVruntime_error@std@@", ".?AVlogic_error@std@@")
    sizes = {Arch.X86: (40, 12, 28), Arch.X64: (64, 24, 40)}
    whole, offset, string_size = sizes[thrown.arch]
    if base is None or base.size != whole:
        return ""
    return _std_string(thrown, base.find(thrown.memory, thrown.arch, thrown.address) + offset, string_size, 1)


def _string_object(thrown: ThrownObject) -> ObjectText | None:
    """Return the text of a thrown `std::string`, `std::wstring`, or `CString` of ATL or MFC; None for other types.

    A `CString` is a pointer to its text.
    """
    own = thrown.types[0]
    for prefix, unit in ((".?AV?$basic_string@D", 1), (".?AV?$basic_string@_W", 2)):
        if own.raw_name.startswith(prefix):
            message = _std_string(thrown, thrown.address, own.size, unit)
            return ObjectText(in_quotes(message), message) if message else ObjectText()
    for prefix, read in ((".?AV?$CStringT@D", ansi_at), (".?AV?$CStringT@_W", wide_at)):
        if own.raw_name.startswith(prefix):
            message = read(thrown.memory, thrown.pointer(thrown.address))
            return ObjectText(in_quotes(message), message)
    return None


def _std_string(thrown: ThrownObject, address: int, string_size: int, unit: int) -> str:
    """Return the text of the `std::basic_string` at `address`. A short text is in the object itself.

    `string_size` is the size of the string object in bytes, and `unit` that of a character.
    """
    size = thrown.arch.pointer_size
    lead = string_size - 16 - 2 * size
    if lead not in {0, size}:
        return ""
    buffer = address + lead
    length, capacity = thrown.pointer(buffer + 16), thrown.pointer(buffer + 16 + size)
    if length > capacity:
        return ""
    where = buffer if capacity < 16 // unit else thrown.pointer(buffer)
    data = thrown.memory.read(where, min(length, LIMIT) * unit)
    shown = escape(decode_ansi(data) if unit == 1 else decode_wide(data))
    return shown + "…" if length > LIMIT and not shown.endswith("…") else shown


_STRING_POINTERS: dict[str, Callable[[Memory, int], str]] = {
    **dict.fromkeys((".PAD", ".PBD", ".PEAD", ".PEBD"), ansi_at),
    **dict.fromkeys((".PA_W", ".PB_W", ".PEA_W", ".PEB_W", ".PAG", ".PBG", ".PEAG", ".PEBG"), wide_at),
}


def _string_pointer(thrown: ThrownObject) -> ObjectText | None:
    read = _STRING_POINTERS.get(thrown.types[0].raw_name)
    if read is None:
        return None
    pointer = thrown.pointer(thrown.address)
    try:
        message = read(thrown.memory, pointer)
    except MemoryUnreadable:
        return ObjectText(f"0x{pointer:x}", notes=("the string is not in memory",))
    return ObjectText(in_quotes(message), message)


_NUMBERS = {
    ".C": "<b",
    ".D": "<b",
    ".E": "<B",
    ".F": "<h",
    ".G": "<H",
    ".H": "<i",
    ".I": "<I",
    ".J": "<i",
    ".K": "<I",
    "._J": "<q",
    "._K": "<Q",
    "._N": "<?",
    "._W": "<H",
    ".M": "<f",
    ".N": "<d",
    ".O": "<d",
}
_ENUMS = {1: "<b", 2: "<h", 4: "<i", 8: "<q"}
_HRESULT_LIKE = frozenset({".H", ".I", ".J", ".K"})


def _number(thrown: ThrownObject) -> ObjectText | None:
    raw = thrown.types[0].raw_name
    enum = _ENUMS.get(thrown.types[0].size, "") if raw.startswith(".?AW4") else ""
    layout = struct.Struct(enum or _NUMBERS.get(raw, ""))
    if not layout.size:
        return None
    (value,) = layout.unpack(thrown.memory.read(thrown.address, layout.size))
    if not isinstance(value, int) or isinstance(value, bool):
        return ObjectText(str(value).lower() if isinstance(value, bool) else f"{value:g}")
    bits = value & ((1 << (8 * layout.size)) - 1)
    if raw in _HRESULT_LIKE and bits & 0x80000000 and hresult(bits).name:
        return ObjectText(status=hresult(bits))
    return ObjectText(f"{value}" if 0 <= value < 10 else f"{value} (0x{bits:x})")


def _pointer(thrown: ThrownObject) -> ObjectText | None:
    """Return the value of a thrown pointer; None if the object is no pointer. MFC throws `CException*`.

    If it points to a `std::exception`, the result has the message of that.
    """
    if not thrown.types[0].raw_name.startswith(".P"):
        return None
    target = thrown.pointer(thrown.address)
    value = f"0x{target:x}"
    base = thrown.base(".PAVexception@std@@", ".PEAVexception@std@@")
    if base is None:
        return ObjectText(value)
    try:
        found = _what(thrown, base.find(thrown.memory, thrown.arch, target))
    except MemoryUnreadable:
        return ObjectText(value, notes=("what it points to is not in memory",))
    return ObjectText(f"{value} {found.value}".rstrip(), found.message, notes=found.notes)


_READERS: tuple[Callable[[ThrownObject], ObjectText | None], ...] = (
    _com_error,
    _atl_exception,
    _std_exception,
    _string_object,
    _string_pointer,
    _number,
    _pointer,
)
