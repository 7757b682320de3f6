# SPDX-License-Identifier: Apache-2.0
"""Lays out what USER32's functions for message boxes take on x86 (winuser.h)."""

from __future__ import annotations

from tests.forge.stacks import Stack


def box_arguments(stack: Stack, base: int, name: str, texts: tuple[str, str], count: int) -> tuple[int, ...]:
    """Return the `count` arguments of a call of `name` that shows `texts`, caption and text; these are put on `stack`.

    They are far below `base`, where no frame is. Without texts, all arguments are 0.
    """
    if not any(texts):
        return (0,) * count
    wide = name.endswith("W")
    where = []
    for position, text in enumerate(texts):
        at = base - (0x9000 if wide else 0x8000) + 0x400 * position
        data = text.encode("utf-16-le") + b"\0\0" if wide else text.encode() + b"\0"
        stack.at(at).raw(data + bytes(-len(data) % 4))
        where.append(at)
    if "Indirect" in name:  # MSGBOXPARAMS: its size, owner, instance, text, caption, style
        stack.at(base - 0xA000).d32(40, 0, 0, where[1], where[0], 0x10)
        return (base - 0xA000,)
    return (0, where[1], where[0], 0x10, *(0,) * (count - 4))
