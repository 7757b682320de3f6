# SPDX-License-Identifier: Apache-2.0
"""What CodeView records have in common, in type streams and in symbol streams: lengths, numbers and strings.

Follows `cvinfo.h` of Microsoft's microsoft-pdb. A record is a u16 length (of what follows it), a u16 kind and a body.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from throwstack.core.errors import ThrowstackError

_HEAD = struct.Struct("<HH")
_LENGTH = struct.Struct("<H")
_LONGEST_NAME = 4096
_NUMERIC = 0x8000
"""A number below this is itself; from here on it is a code that says which kind of number follows."""
_NUMBERS = {
    0x8000: struct.Struct("<b"),
    0x8001: struct.Struct("<h"),
    0x8002: struct.Struct("<H"),
    0x8003: struct.Struct("<i"),
    0x8004: struct.Struct("<I"),
    0x8009: struct.Struct("<q"),
    0x800A: struct.Struct("<Q"),
}
_OF_16_BYTES = {0x8017: True, 0x8018: False}


class BadRecord(ThrowstackError):
    """A type or symbol record in a PDB is damaged, or of a form that is not known."""


class Record(NamedTuple):
    """A record of a CodeView stream: its offset in the bytes, its kind, and where its body begins and ends."""

    at: int
    kind: int
    begin: int
    end: int


def records(data: bytes, at: int, end: int) -> Iterator[Record]:
    """Yield the records in `data` from offset `at` up to `end`. They end before the first that is damaged."""
    end = min(end, len(data))
    while at + _HEAD.size <= end:
        length, kind = _HEAD.unpack_from(data, at)
        following = at + 2 + length
        if length < 2 or following > end:
            return
        yield Record(at, kind, at + _HEAD.size, following)
        at = following


def record_offsets(data: bytes) -> list[int]:
    """Return the offset of each record in `data`, up to the first that is damaged."""
    found = []
    at, end, unpack_length = 0, len(data), _LENGTH.unpack_from
    while at + _HEAD.size <= end:
        following = at + 2 + unpack_length(data, at)[0]
        if following < at + _HEAD.size or following > end:
            break
        found.append(at)
        at = following
    return found


def unpack(form: struct.Struct, data: bytes, at: int) -> tuple[int, ...]:
    """Return the numbers of `form` at offset `at` of `data`. Raises `BadRecord` if `data` ends before."""
    try:
        return form.unpack_from(data, at)
    except struct.error:
        message = "a record ends too early"
        raise BadRecord(message) from None


def number(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that is stored at offset `at` of `data` in as few bytes as it needs, and the offset after it.

    Raises `BadRecord` if it is not an integer, or if `data` ends before.
    """
    if at + 2 > len(data):
        message = "a record ends before a number"
        raise BadRecord(message)
    code = data[at] | data[at + 1] << 8
    if code < _NUMERIC:
        return code, at + 2
    form = _NUMBERS.get(code)
    if form is not None:
        return unpack(form, data, at + 2)[0], at + 2 + form.size
    if code in _OF_16_BYTES and at + 18 <= len(data):
        return int.from_bytes(data[at + 2 : at + 18], "little", signed=_OF_16_BYTES[code]), at + 18
    message = f"a number of kind {code:#x}"
    raise BadRecord(message)


def size_number(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at offset `at` that is a size or an offset, and the offset after it.

    Raises `BadRecord` as `number` does, and if it is negative.
    """
    found, following = number(data, at)
    if found < 0:
        message = f"a size of {found}"
        raise BadRecord(message)
    return found, following


def string(data: bytes, at: int) -> tuple[str, int]:
    """Return the zero-terminated UTF-8 string at offset `at` of `data`, and the offset after its terminator.

    A string without a terminator ends with `data`. More than 4096 bytes of a string are left out.
    """
    end = data.find(b"\0", at)
    end = len(data) if end < 0 else end
    return data[at : min(end, at + _LONGEST_NAME)].decode("utf-8", "replace"), end + 1
