# SPDX-License-Identifier: Apache-2.0
"""Puts the bytes of a variable into words, by its type.

A structure is written member by member, a few of them. One that has a single member is written as that member, so that
a smart pointer with nothing in it is `0`, as a person expects. Virtual base classes are `…`: where they are, the PDB
does not say. A value is made as far as it is shown: a structure of a kilobyte in structures has hundreds of members,
and its text is cut after a few. Texts in the memory of a dump are escaped.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.text import decode_ansi, decode_wide, escape, quote, text_at
from throwstack.exceptions.status import hresult, ntstatus
from throwstack.pdb.type_model import (
    Array,
    Basic,
    BasicKind,
    BitField,
    Enumeration,
    Field,
    Pointer,
    Structure,
    Type,
)
from throwstack.pdb.types import Types
from throwstack.unwind.target import Target
from throwstack.variables.places import FoundBytes

_MAX_DEPTH = 3
_MAX_MEMBERS = 6
_MAX_ELEMENTS = 4
_MAX_STRING = 64
_MAX_TEXT = 256
_MAX_ENUMERATORS = 4096
_LEAST_FLAG = 4
_SMALL = 10
_FORMS = {2: ("<e", 4, 5), 4: ("<f", 6, 9), 8: ("<d", 15, 17)}
"""Of a floating-point number by its size: how it is unpacked, and how many digits its text has at least and at most."""
_CHAR = Basic("char", BasicKind.CHARACTER, 1)
_CUT = "…"
_UNKNOWN = "?"
_SUCCESS = {0: "S_OK", 1: "S_FALSE"}
"""The HRESULTs of success that have a name."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A value in words, and as a number if it is an integer, a pointer or an enumeration."""

    text: str
    value: int | None = None


class ValueText:
    """Writes values that are in the memory of one process, of types of one PDB."""

    def __init__(self, types: Types, target: Target) -> None:
        """`target` has what pointers point to, and the names for it."""
        self._types = types
        self._target = target
        self._room = _MAX_TEXT
        """How many more characters of the value are shown. No more of it is made than that."""

    def of(self, index: int, found: FoundBytes) -> Shown:
        """Return the value of the type with the number `index` in the bytes `found`."""
        self._room = _MAX_TEXT
        shown = self._shown(index, found.data, found.known, 0)
        return Shown(escape(shown.text, _MAX_TEXT), shown.value)

    def _shown(self, index: int, data: bytes, known: bytes | None, depth: int) -> Shown:
        self._types.values_time.check_inside()
        plain = self._types.plain(index)
        if isinstance(plain, Structure):
            return self._structure(plain, data, known, depth)
        if isinstance(plain, Array):
            return Shown(self._array(plain, data, known, depth))
        size = self._types.size(index)
        is_known = size and size <= len(data) and (known is None or all(known[:size]))
        return self._counted(self._scalar(plain, data[:size]) if is_known else Shown(_UNKNOWN))

    def _counted(self, shown: Shown) -> Shown:
        self._room -= len(shown.text)
        return shown

    def _scalar(self, plain: Type, data: bytes) -> Shown:
        value = int.from_bytes(data, "little")
        if isinstance(plain, Pointer):
            return Shown(self._pointer(plain, value), value)
        if isinstance(plain, Enumeration):
            return Shown(self._enumeration(plain, data), value)
        if isinstance(plain, Basic):
            return _basic(plain, data, value)
        return Shown(data[:16].hex(" "))

    def _pointer(self, pointer: Pointer, value: int) -> str:
        if pointer.is_to_member:
            return f"{value:#x}"
        if not value:
            return "0"
        address = f"0x{value:0{2 * pointer.size}x}"
        target = self._types.bare(pointer.target)
        if isinstance(target, Basic) and target.kind is BasicKind.CHARACTER and target.size in (1, 2):
            text = self._text_at(value, target.size)
            return f"{address} {text}"
        return " ".join(filter(None, (address, self._name(value))))

    def _name(self, address: int) -> str:
        """Return the name of an address in an image, or "".

        Symbols of data have no end, so that an address after the start of one may be in another that has no symbol.
        """
        name = self._target.symbols.name(address)
        if not name.module or name.rva is None:
            return ""
        is_named = name.is_certain and (not name.offset or self._target.images.is_code(address))
        return str(name) if is_named else f"{name.module}+{name.rva:#x}"

    def _text_at(self, address: int, size: int) -> str:
        try:
            text, is_whole = text_at(self._target.memory, address, _MAX_STRING, size)
            return quote(text, _MAX_STRING, is_whole=is_whole)
        except MemoryUnreadable:
            return "(not in the dump)"

    def _enumeration(self, enumeration: Enumeration, data: bytes) -> str:
        value, mask = int.from_bytes(data, "little"), (1 << 8 * len(data)) - 1
        names = [(name, at & mask) for name, at in islice(self._types.enumerators(enumeration), _MAX_ENUMERATORS + 1)]
        exact = next((name for name, at in names if at == value), None)
        if exact is not None:
            return f"{exact} ({_integer(value, len(data), is_signed=self._is_signed(enumeration))})"
        flags, left = [], value
        for name, at in names if _are_flags([at for _, at in names], mask) else ():
            if _is_one_bit(at) and left & at:
                flags.append(name)
                left &= ~at
        if flags and not left:
            return f"{' | '.join(flags)} ({value:#x})"
        return _integer(value, len(data), is_signed=self._is_signed(enumeration))

    def _is_signed(self, plain: Type) -> bool:
        if isinstance(plain, Enumeration):
            plain = self._types.plain(plain.target)
        return isinstance(plain, Basic) and (plain.kind is BasicKind.SIGNED or plain == _CHAR)

    def _array(self, array: Array, data: bytes, known: bytes | None, depth: int) -> str:
        element, size = self._types.plain(array.element), self._types.size(array.element)
        if not size:
            return _UNKNOWN
        if isinstance(element, Basic) and element.kind is BasicKind.CHARACTER and size <= 2 and known is None:
            text = _characters(data[: array.size], size, is_whole=len(data) >= array.size)
            return self._counted(Shown(text)).text
        if depth >= _MAX_DEPTH:
            return f"{{{_CUT}}}"
        count = array.size // size
        texts: list[str] = []
        self._room -= len("{}")
        while len(texts) < min(count, _MAX_ELEMENTS) and self._room > 0:
            at = len(texts) * size
            texts.append(self._shown(array.element, data[at:], _known_part(known, at), depth + 1).text)
        return _in_braces(texts, is_cut=count > len(texts))

    def _structure(self, structure: Structure, data: bytes, known: bytes | None, depth: int) -> Shown:
        if depth >= _MAX_DEPTH or structure.is_forward:
            return Shown(f"{{{_CUT}}}")
        found = self._types.outline(structure, _MAX_MEMBERS + 1)
        fields = found.fields
        is_bare = not (structure.is_union or found.has_virtual_bases or found.has_function_table)
        if len(fields) == 1 and is_bare:
            return self._member(fields[0], data, known, depth)
        texts = [_CUT] if found.has_virtual_bases else []
        self._room -= len("{}")
        for count, field in enumerate(fields):
            if count >= _MAX_MEMBERS or self._room <= 0:
                return Shown(_in_braces(texts, is_cut=True))
            named = "" if field.is_base else f"{field.name}="
            self._room -= len(named)
            texts.append(f"{named}{self._member(field, data, known, depth).text}")
        return Shown(_in_braces(texts))

    def _member(self, field: Field, data: bytes, known: bytes | None, depth: int) -> Shown:
        part, part_known = data[field.offset :], _known_part(known, field.offset)
        plain = self._types.type(field.type)
        if isinstance(plain, BitField):
            return self._counted(self._bits(plain, part, part_known))
        return self._shown(field.type, part, part_known, depth + 1)

    def _bits(self, field: BitField, data: bytes, known: bytes | None) -> Shown:
        size = self._types.size(field.target)
        if not size or size > len(data) or (known is not None and not all(known[:size])):
            return Shown(_UNKNOWN)
        length = min(max(field.length, 1), 8 * size)
        value = int.from_bytes(data[:size], "little") >> field.position & (1 << length) - 1
        plain = self._types.plain(field.target)
        is_signed = self._is_signed(plain) and value >> (length - 1)
        number = value - (1 << length) if is_signed else value
        if isinstance(plain, Enumeration):
            return Shown(self._enumeration(plain, (number & (1 << 8 * size) - 1).to_bytes(size, "little")), value)
        if isinstance(plain, Basic) and plain.kind is BasicKind.BOOLEAN:
            return _basic(plain, data[:size], value)
        return Shown(str(number) if -_SMALL < number < _SMALL else f"{number} ({value:#x})", value)


def _in_braces(texts: Sequence[str], *, is_cut: bool = False) -> str:
    return f"{{{', '.join([*texts, *([_CUT] if is_cut else [])])}}}"


def _are_flags(values: Sequence[int], mask: int) -> bool:
    """Say whether an enumeration with these values, which have the bits of `mask`, is one of flags.

    Its values are single bits and 0, besides the largest number, by which some headers make an enumeration as wide as
    they want it. And one of them is 4 or more: 1 and 2, as in `enum State {Idle, Running, Stopped}`, are counted just
    as well. What is no flag is not made of others: `enum Day {Mon = 1, …, Fri = 5}` has no 6 that is `Tue | Thu`.
    """
    bits = [value for value in values if value not in (0, mask, mask >> 1)]
    is_whole = len(values) <= _MAX_ENUMERATORS
    return is_whole and all(map(_is_one_bit, bits)) and max(bits, default=0) >= _LEAST_FLAG


def _is_one_bit(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _known_part(known: bytes | None, offset: int) -> bytes | None:
    return None if known is None else known[offset:]


def _basic(basic: Basic, data: bytes, value: int) -> Shown:
    kind, size = basic.kind, basic.size
    if kind is BasicKind.HRESULT:
        return Shown(" ".join(filter(None, (f"0x{value:08x}", _SUCCESS.get(value) or hresult(value).name))), value)
    if kind is BasicKind.BOOLEAN:
        return Shown({0: "false", 1: "true"}.get(value, f"true ({value:#x})"), value)
    if kind is BasicKind.CHARACTER:
        return Shown(_character(basic, data, value), value)
    if kind is BasicKind.FLOATING:
        return Shown(_floating(data))
    if kind in (BasicKind.SIGNED, BasicKind.UNSIGNED):
        return Shown(_integer(value, size, is_signed=kind is BasicKind.SIGNED), value)
    return Shown(data.hex(" "))


def _character(basic: Basic, data: bytes, value: int) -> str:
    """Return a character with its number. A `char` is signed, as compilers have it that write PDBs: 0xFF is `'ÿ' (-1)`.

    A character that is not printable has its number alone.
    """
    is_signed = basic == _CHAR
    character = (decode_ansi(data) if basic.size == 1 else chr(value)) if value < 0x110000 else ""
    if not character or not character.isprintable() or value < 0x20:
        return _integer(value, basic.size, is_signed=is_signed)
    quoted = f"\\{character}" if character in "'\\" else character
    return f"'{quoted}' ({value - 0x100 if is_signed and value >= 0x80 else value})"


def _floating(data: bytes) -> str:
    """Return a floating-point number with as few digits as tell it from its neighbours."""
    form, least, most = _FORMS.get(len(data), ("", 0, 0))
    if not form:
        return _UNKNOWN
    (value,) = struct.unpack(form, data)
    texts = (f"{value:.{digits}g}" for digits in range(least, most))
    return next((text for text in texts if _is_text_of(text, form, data)), f"{value:.{most}g}")


def _is_text_of(text: str, form: str, data: bytes) -> bool:
    with suppress(OverflowError):  # rounded up, the largest number is too large
        return struct.pack(form, float(text)) == data
    return False


def _integer(value: int, size: int, *, is_signed: bool) -> str:
    """Return an integer, given as an unsigned number of `size` bytes: decimal, and hexadecimal if that differs.

    If it is the code of an error, its name follows: NTSTATUS and HRESULT are integers as soon as they are not declared
    with those names.
    """
    signed = value - (1 << 8 * size) if is_signed and value >> (8 * size - 1) & 1 else value
    if -_SMALL < signed < _SMALL:
        return str(signed)
    name = ""
    if size == 4 and value >> 30 in (2, 3):
        name = (ntstatus(value) if value >> 30 == 3 else hresult(value)).name
    return f"{signed} ({' '.join(filter(None, (f'{value:#x}', name)))})"


def _characters(data: bytes, size: int, *, is_whole: bool) -> str:
    """Return an array of characters as text, up to its first zero."""
    units = [data[at : at + size] for at in range(0, len(data) - size + 1, size)]
    end = next((index for index, unit in enumerate(units) if not any(unit)), None)
    is_cut = not is_whole or len(units) > _MAX_STRING if end is None else end > _MAX_STRING
    raw = b"".join(units[:end][:_MAX_STRING])
    text = decode_ansi(raw) if size == 1 else decode_wide(raw)
    return quote(text, _MAX_STRING, is_whole=not is_cut)
