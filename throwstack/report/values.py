# SPDX-License-Identifier: Apache-2.0
"""Kinds of values in reports: numbers that are shown in hexadecimal, and fields that JSON always has."""

from __future__ import annotations

from typing import Final, overload

ALWAYS: Final = {"always": True}
"""Metadata of a dataclass field that is present in JSON even if it is empty."""


class Hexadecimal(int):
    """An integer that is shown as `0x…`, also in JSON; otherwise it behaves as an `int`."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return `0x7c828752`."""
        return hex(self)

    __repr__ = __str__


@overload
def hexadecimal(value: int) -> Hexadecimal: ...
@overload
def hexadecimal(value: None) -> None: ...
def hexadecimal(value: int | None) -> Hexadecimal | None:
    """Return a number as a `Hexadecimal`, None as None."""
    return None if value is None else Hexadecimal(value)
