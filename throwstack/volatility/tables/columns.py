# SPDX-License-Identifier: Apache-2.0
"""Columns of a Volatility table. Each has a title, the type of its values, and a function that computes a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from volatility3.framework import renderers
from volatility3.framework.renderers import format_hints

from throwstack.core.text import escape

Source_contra = TypeVar("Source_contra", contravariant=True)
Row = tuple[Any, ...]
ABSENT = renderers.NotAvailableValue()
NOTES_LIMIT = 1024
"""The limit on the characters of a cell with notes. The reports contain all notes in full."""


class Prose(str):
    """A text that may be continued on another line of its cell. Other texts, such as call sites, are never broken."""

    __slots__ = ()


class PaddedHex(format_hints.Hex):  # type: ignore[misc] # Volatility's classes have no types here
    """A number that text renderers, which print `0x{value:x}`, print with at least `digits` digits."""

    digits: int

    def __new__(cls, value: int, digits: int) -> PaddedHex:  # noqa: PYI034 typing.Self came with Python 3.11
        """Return the number `value`."""
        padded: PaddedHex = super().__new__(cls, value)
        padded.digits = digits
        return padded

    def __format__(self, spec: str) -> str:
        return format(int(self), f"0{self.digits}x" if spec == "x" else spec)


@dataclass(frozen=True, slots=True)
class Column(Generic[Source_contra]):
    """A column of a table.

    `value` is a function that takes the object shown in a row, and returns the cell's value, or None if the cell is
    empty. `digits` is present for addresses: it returns how many hexadecimal digits a pointer has there. `is_prose`
    says that the texts may be continued on another line.
    """

    title: str
    type: type
    value: Callable[[Source_contra], object]
    digits: Callable[[Source_contra], int] | None = None
    is_prose: bool = False


def headings(columns: Iterable[Column[Source_contra]]) -> list[tuple[str, type]]:
    """Return the titles and types of columns in the form that Volatility's TreeGrid needs."""
    return [(column.title, column.type) for column in columns]


def row(columns: Sequence[Column[Source_contra]], source: Source_contra) -> Row:
    """Return the cells of the row that shows `source`.

    A value of None becomes the object that Volatility's renderers show for an absent value.
    """
    return tuple(_cell(column.type, column.value(source)) for column in columns)


def row_for_person(columns: Sequence[Column[Source_contra]], source: Source_contra) -> Row:
    """Return the cells of a row as a person reads them: addresses have all their digits, prose is marked as such."""
    return tuple(_cell_for_person(column, source) for column in columns)


def _cell(kind: type, value: object) -> object:
    if value is None:
        return ABSENT
    if kind is format_hints.Hex:
        assert isinstance(value, int)
        return format_hints.Hex(value)
    return value


def _cell_for_person(column: Column[Source_contra], source: Source_contra) -> object:
    value = _cell(column.type, column.value(source))
    if value is ABSENT:
        return value
    if column.digits is not None and isinstance(value, int):
        return PaddedHex(value, column.digits(source))
    return Prose(value) if column.is_prose else value


def joined(parts: Iterable[str]) -> str:
    """Return notes as the text of one cell, shortened to the limit."""
    return escape("; ".join(parts), NOTES_LIMIT)
