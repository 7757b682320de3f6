# SPDX-License-Identifier: Apache-2.0
"""Columns of a Volatility table. Each has a title, the type of its values, and a function that gives a value."""

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
"""The most characters of a cell with notes. The reports have all notes in full."""


@dataclass(frozen=True, slots=True)
class Column(Generic[Source_contra]):
    """A column. `value` takes the object that a row shows, and returns None if there is nothing to show."""

    title: str
    type: type
    value: Callable[[Source_contra], object]


def headings(columns: Iterable[Column[Source_contra]]) -> list[tuple[str, type]]:
    """Return titles and types in the form that Volatility's TreeGrid needs."""
    return [(column.title, column.type) for column in columns]


def row(columns: Sequence[Column[Source_contra]], source: Source_contra) -> Row:
    """Return the cells of `source`. None becomes the object that Volatility's renderers show for an absent value."""
    return tuple(_cell(column.type, column.value(source)) for column in columns)


def _cell(kind: type, value: object) -> object:
    if value is None:
        return ABSENT
    if kind is format_hints.Hex:
        assert isinstance(value, int)
        return format_hints.Hex(value)
    return value


def joined(parts: Iterable[str]) -> str:
    """Return notes as one cell."""
    return escape("; ".join(parts), NOTES_LIMIT)
