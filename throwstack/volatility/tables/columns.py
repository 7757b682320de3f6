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


@dataclass(frozen=True, slots=True)
class Column(Generic[Source_contra]):
    """A column of a table.

    `value` is a function that takes the object shown in a row, and returns the cell's value, or None if the cell is
    empty.
    """

    title: str
    type: type
    value: Callable[[Source_contra], object]


def headings(columns: Iterable[Column[Source_contra]]) -> list[tuple[str, type]]:
    """Return the titles and types of columns in the form that Volatility's TreeGrid needs."""
    return [(column.title, column.type) for column in columns]


def row(columns: Sequence[Column[Source_contra]], source: Source_contra) -> Row:
    """Return the cells of the row that shows `source`.

    A value of None becomes the object that Volatility's renderers show for an absent value.
    """
    return tuple(_cell(column.type, column.value(source)) for column in columns)


def _cell(kind: type, value: object) -> object:
    if value is None:
        return ABSENT
    if kind is format_hints.Hex:
        assert isinstance(value, int)
        return format_hints.Hex(value)
    return value


def joined(parts: Iterable[str]) -> str:
    """Return notes as the text of one cell, shortened to the limit."""
    return escape("; ".join(parts), NOTES_LIMIT)
