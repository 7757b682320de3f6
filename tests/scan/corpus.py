# SPDX-License-Identifier: Apache-2.0
"""A directory of many dumps of all kinds, made of a few: whole, truncated, damaged, and files that are no dumps."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

CASES = (
    "ftp-2003",
    "service-x64",
    "quiet",
    "quiet-x86",
    "wow64-service",
    "handlers-x64",
    "handlers-x86",
    "nested",
    "deadlock",
    "decoys-x64",
    "decoys-x86",
    "paged-peb",
    "shutdown-hang",
)
"""The forged cases that are taken."""
_FOREIGN = (b"", b"not a dump\n" * 40, b"MDMP" + bytes(8000), b"PK\x03\x04" + bytes(500), b"PAGEDU64" + bytes(100))
_KINDS = ("whole", "whole", "whole", "truncated", "damaged", "whole", "foreign", "whole", "header")


def make_corpus(directory: Path, dumps: Sequence[Path], count: int, *, seed: int = 23) -> list[Path]:
    """Fill `directory` with `count` files made of `dumps`, the same for a seed; return their paths in order."""
    directory.mkdir(parents=True, exist_ok=True)
    chosen = random.Random(seed)
    made = []
    for number, (dump, kind) in enumerate(_pairs(dumps)):
        if number == count:
            return sorted(made)
        path = directory / f"{number:04}-{dump.parent.name}-{kind}.dmp"
        if not path.exists():
            path.write_bytes(_contents(dump, kind, chosen))
        made.append(path)
    message = "there are no dumps"
    raise ValueError(message)


def _pairs(dumps: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    kinds = cycle(_KINDS)
    while dumps:
        for dump in dumps:
            yield dump, next(kinds)


def _contents(dump: Path, kind: str, chosen: random.Random) -> bytes:
    data = bytearray(dump.read_bytes() if kind != "foreign" else chosen.choice(_FOREIGN))
    if kind == "truncated":
        del data[len(data) * chosen.randint(30, 95) // 100 :]
    elif kind == "damaged":
        for _ in range(chosen.choice((16, 256, 4096))):
            data[chosen.randrange(0x2000, len(data))] = chosen.randrange(256)
    elif kind == "header":
        data[0x10 : chosen.randint(0x20, 0x1000)] = b"\xff" * 0x10
    return bytes(data)
