# SPDX-License-Identifier: Apache-2.0
"""Decompresses the "plain LZ77" of the Xpress family, in which Windows 10 stores pages: [MS-XCA], section 2.4.4.

The input is a sequence of groups. A group is 32 flag bits, highest first, and an item for each flag: a literal byte
(flag 0), or a match (flag 1), which repeats earlier output. A match has 16 bits: the distance back in the upper 13, the
length in the lower 3.

A length that does not fit into 3 bits is continued in further bytes. Two long matches share the first of these bytes:
each uses half of it. So two long matches X and Y are stored as the 16 bits of X, the shared byte, the 16 bits of Y. The
low four bits of the shared byte belong to X, the high four bits to Y.

There is no checksum and no end mark, so the size of the output has to be known.
"""

from __future__ import annotations

import struct

from throwstack.core.errors import ThrowstackError

_U16 = struct.Struct("<H").unpack_from
_U32 = struct.Struct("<I").unpack_from

_SHORTEST = 3
_IN_ITEM = 7
"""The largest value of the three length bits, which means that half a byte of length follows."""
_IN_HALF_BYTE = 15
"""The largest value of that half byte, which means that a byte of length follows."""
_IN_BYTE = 255
"""The largest value of that byte, which means that 16 bits of length follow; if they are 0, 32 bits follow."""


class BadXpress(ThrowstackError):
    """The data is damaged, or does not decompress to the expected size; the message says what is wrong."""


def decompress(data: bytes, size: int) -> bytes:
    """Return the `size` bytes to which `data` decompresses; raises `BadXpress` if that is not possible."""
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
                more, shared = data[at] & 15, at  # the position is never 0, as flags come first
                at += 1
            length += more
            if more == _IN_HALF_BYTE:
                length, at = _long(data, at)
        length += _SHORTEST
        if distance > len(out):
            message = "a match begins before the data"
            raise BadXpress(message)
        if len(out) + length > size:
            message = f"a match ends after the {size} bytes"
            raise BadXpress(message)
        start = len(out) - distance
        # A match may reach into its own output: distance 1 and length 5 after "a" gives "aaaaa".
        out += (out[start:] * (length // distance + 1))[:length] if distance < length else out[start : start + length]
    return bytes(out)


def _long(data: bytes, at: int) -> tuple[int, int]:
    """Return the length (less `_SHORTEST`) that is stored at `at` after a full half byte, and the position after it."""
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
