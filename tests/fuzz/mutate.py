# SPDX-License-Identifier: Apache-2.0
"""Changes to bytes: flipped bits, values at the edges of what counts and lengths can be, pieces of other data."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

EDGES = (
    *(0, 1, 2, 3, 4, 7, 8, 0x0F, 0x10, 0x3F, 0x40, 0x7F, 0x80, 0xFF, 0x100, 0x7FF, 0x800, 0xFFF, 0x1000, 0x1001),
    *(0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFF, 0x3FFFE000, 0x7FFFFFFF, 0x80000000, 0xF0000000, 0xFFFFF000),
    *(0xFFFFFFF8, 0xFFFFFFFE, 0xFFFFFFFF, 0x1_0000_0000, 0x7FFF_FFFFFFFF, 0x8000_00000000, 0xFFFF8000_00000000),
    *(0x7FFFFFFF_FFFFFFFF, 0x80000000_00000000, 0xFFFFFFFF_FFFFF000, 0xFFFFFFFF_FFFFFFFF),
)
TEXTS = (
    b"\x1b[31mred\x1b[0m",
    b"\x1b]0;title\x07",
    b"\x9b2J",
    "a\u202eb\u2066c\u200f".encode(),
    "\u202egnp.exe".encode("utf-16-le"),
    "\x1b[2J\r\n\x85\u2028".encode("utf-16-le"),
    b"\x00\xd8\x00\xd8",
    b"..\\..\\..\\x",
    b"/../../etc/passwd",
    b"%s%n{0}{x!r}",
    b"?" * 40,
    b"\xff\xfe\xfd",
    b"A" * 300,
)
"""What hostile names are made of: terminal escapes, bidi marks, line ends, paths, formats."""


@dataclass(frozen=True)
class Edit:
    """Bytes to be put at an offset, and how they were made."""

    at: int
    data: bytes
    how: str


def edit(  # noqa: PLR0911 - one for each way
    rng: random.Random, data: bytes | bytearray, pool: Sequence[int] = (), donor: bytes = b""
) -> Edit:
    """Return a change to non-empty `data` that keeps its length.

    `pool` has values that mean something there (addresses), `donor` bytes of the same kind from elsewhere.
    """
    size = len(data)
    choice = rng.random()
    if choice < 0.14:
        at = rng.randrange(size)
        return Edit(at, bytes([data[at] ^ 1 << rng.randrange(8)]), "bit flipped")
    if choice < 0.2:
        at = rng.randrange(size)
        part = bytes(byte ^ (1 << rng.randrange(8) if rng.random() < 0.5 else 0) for byte in data[at : at + 8])
        return Edit(at, part, "bits flipped")
    if choice < 0.72:
        return _value(rng, data, pool)
    if choice < 0.78:
        at = rng.randrange(size)
        return Edit(at, rng.randbytes(min(rng.choice((1, 2, 4, 8, 32)), size - at)), "random bytes")
    if choice < 0.84:
        at = rng.randrange(size)
        length = min(rng.choice((4, 16, 64, 256, 4096)), size - at)
        return Edit(at, rng.choice((b"\0", b"\xff", b"\x41")) * length, "filled")
    if choice < 0.9 and donor:
        start, at = rng.randrange(len(donor)), rng.randrange(size)
        part = donor[start : start + min(rng.choice((8, 32, 128, 1024)), size - at)]
        return Edit(at, bytes(part), "spliced")
    if choice < 0.95:
        at, start = rng.randrange(size), rng.randrange(size)
        return Edit(at, bytes(data[start : start + min(rng.choice((4, 8, 24, 96)), size - at)]), "copied within")
    at = rng.randrange(size)
    return Edit(at, rng.choice(TEXTS)[: size - at], "hostile text")


def _value(rng: random.Random, data: bytes | bytearray, pool: Sequence[int]) -> Edit:
    """Put a number at the place of one: mostly aligned to its size."""
    size = len(data)
    width = rng.choice((1, 2, 4, 4, 4, 8, 8))
    while width > size:
        width //= 2
    at = rng.randrange(size - width + 1)
    if rng.random() < 0.9:
        at -= at % width
    now = int.from_bytes(data[at : at + width], "little")
    choice = rng.random()
    if choice < 0.45 or (not pool and choice < 0.65):
        value, how = rng.choice(EDGES), "edge value"
    elif choice < 0.65:
        value, how = rng.choice(pool) + rng.choice((0, 0, 0, 1, 4, 8, -1, -8, 0x1000, -0x1000)), "meaningful value"
    elif choice < 0.9:
        value, how = now + rng.choice((-0x1000, -256, -8, -4, -2, -1, 1, 2, 4, 8, 256, 0x1000)), "a little off"
    else:
        value, how = now * rng.choice((2, 3, -1, 0x100, 0x10000)), "multiplied"
    return Edit(at, (value & (1 << 8 * width) - 1).to_bytes(width, "little"), how)


def mutate(rng: random.Random, data: bytes, donor: bytes = b"", *, keeps_size: bool = False) -> bytes:
    """Return `data` with a few changes; unless it keeps its size, now and then cut off, grown, or without a piece."""
    changed = bytearray(data)
    for _ in range(1 + min(int(rng.expovariate(0.8)), 6)):
        if not changed:
            break
        made = edit(rng, changed, (), donor)
        changed[made.at : made.at + len(made.data)] = made.data
    if not keeps_size and changed and rng.random() < 0.15:
        at = rng.randrange(len(changed))
        choice = rng.random()
        if choice < 0.5:
            del changed[at:]
        elif choice < 0.75:
            del changed[at : at + rng.choice((1, 2, 4, 16, 256))]
        else:
            changed[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16))) if rng.random() < 0.5 else changed[at : at + 64]
    return bytes(changed)
