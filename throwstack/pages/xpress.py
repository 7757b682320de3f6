# SPDX-License-Identifier: Apache-2.0
"""Plain LZ77 of the Xpress family, with which Windows 10 compresses pages: [MS-XCA], section 2.4.4 (decompression).

The input is flags and items by turns: 32 flag bits, highest first, then an item for each of them, a byte to copy (0) or
a match with what came before (1). Long lengths take further bytes, of which the first is shared by two matches: each
has one half. There is no checksum, and no mark at the end: whoever decompresses has to know the size.
"""

from __future__ import annotations

import struct

from throwstack.core.errors import ThrowstackError

_U16 = struct.Struct("<H").unpack_from
_U32 = struct.Struct("<I").unpack_from

_SHORTEST = 3
_IN_ITEM = 7
"""A length (less the shortest) that fills the item's three bits: the rest follows in half a byte."""
_IN_HALF_BYTE = 15
_IN_BYTE = 255


class BadXpress(ThrowstackError):
    """The data is damaged, or not compressed to the size that was given; the message says how."""


def decompress(data: bytes, size: int) -> bytes:
    """Return the `size` bytes that `data` stands for; raises `BadXpress`. Never makes more bytes than that."""
    try:
        return _decompress(data, size)
    except (IndexError, struct.error):
        message = f"the data ends before {size} bytes are there"
        raise BadXpress(message) from None


def _decompress(data: bytes, size: int) -> bytes:
    out = bytearray()
    at = flags = flag = shared = 0
    while len(out) < size:
        if not flag:
            flags, flag = _U32(data, at)[0], 1 << 31
            at += 4
        is_match, flag = flags & flag, flag >> 1
        if not is_match:
            out.append(data[at])
            at += 1
            continue
        item = _U16(data, at)[0]
        at += 2
        distance, length = (item >> 3) + 1, item & _IN_ITEM
        if length == _IN_ITEM:
            if shared:
                more, shared = data[shared] >> 4, 0
            else:
                more, shared = data[at] & 15, at  # never 0: flags come first
                at += 1
            length += more
            if more == _IN_HALF_BYTE:
                length, at = _long(data, at)
        length += _SHORTEST
        if distance > len(out):
            message = "a match begins before the data"
            raise BadXpress(message)
        if len(out) + length > size:
            message = f"a match ends behind the {size} bytes"
            raise BadXpress(message)
        start = len(out) - distance
        # A match may overlap what it makes: then it repeats itself.
        out += (out[start:] * (length // distance + 1))[:length] if distance < length else out[start : start + length]
    return bytes(out)


def _long(data: bytes, at: int) -> tuple[int, int]:
    """Return a length (less the shortest) that fills the half byte, and the position behind it."""
    length = data[at]
    if length != _IN_BYTE:
        return length + _IN_HALF_BYTE + _IN_ITEM, at + 1
    length, at = _U16(data, at + 1)[0], at + 3
    if not length:
        length, at = _U32(data, at)[0], at + 4
    if length < _IN_HALF_BYTE + _IN_ITEM:
        message = "a length is shorter than its form allows"
        raise BadXpress(message)
    return length, at
