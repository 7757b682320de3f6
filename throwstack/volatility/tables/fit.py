# SPDX-License-Identifier: Apache-2.0
"""Makes a table that Volatility's renderer `pretty` prints fit a screen.

The renderer makes each column as wide as its longest cell, and prints the lines of a cell that has several below each
other, each of them at the right edge. So columns without any value are left out, and prose is continued on further
lines, which are filled with spaces so that they begin below each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from volatility3.framework.renderers import format_hints

from throwstack.volatility.tables.columns import ABSENT, Column, Prose, Row, Source_contra

Tree = list[tuple[int, Row]]
"""Rows with their depths in the tree; those of depth 0 are at its root."""

_BETWEEN = len(" | ")
_NARROWEST = 12
"""The width in characters below which prose is not squeezed."""
_LONGEST_WORD = 40
"""The length in characters above which a word is broken."""
_WORDS = re.compile(r".+?(?:::|[!/\\]|,? +|,|$)", re.DOTALL)
"""A line may end after a space, a comma, a slash or backslash, and after `!` and `::` of a call site."""


def fit(
    columns: Sequence[Column[Source_contra]], rows: Tree, width: int, hidden: Collection[str] = ()
) -> tuple[list[Column[Source_contra]], Tree]:
    """Return the columns that have a value, and rows with their cells, not wider than `width` where that is possible.

    `hidden` are the first letters of the titles of columns that the renderer hides.
    """
    kept = [
        index
        for index, column in enumerate(columns)
        if not rows or any(not _is_empty(cells[index]) for _, cells in rows)
    ]
    prefixes = tuple(prefix.lower() for prefix in hidden)
    found = [_Widths.of(columns[index].title, [cells[index] for _, cells in rows]) for index in kept]
    visible = [one for one in found if not one.title.lower().startswith(prefixes)]
    room = width - 1 - max((depth for depth, _ in rows), default=0) - _BETWEEN * len(visible)
    limit = _greatest(lambda limit: sum(one.with_limit(limit) for one in visible) <= room, _NARROWEST, room)
    cells = [_column([cells[index] for _, cells in rows], one, limit) for index, one in zip(kept, found, strict=True)]
    depths = (depth for depth, _ in rows)
    return [columns[index] for index in kept], list(zip(depths, zip(*cells, strict=True), strict=True))


def _column(cells: Sequence[object], widths: _Widths, limit: int) -> list[object]:
    """Return the cells of a column, the prose in lines of one length, so that all of them begin below each other."""
    to = widths.with_limit(limit)
    if widths.prose <= to:
        return list(cells)
    lines = [wrap(cell, to) if isinstance(cell, Prose) else [] for cell in cells]
    longest = max((len(line) for one in lines for line in one), default=0)
    return [
        "\n".join(line.ljust(longest) for line in one) if one else cell for cell, one in zip(cells, lines, strict=True)
    ]


def _is_empty(cell: object) -> bool:
    return cell is ABSENT or cell == ""


@dataclass(frozen=True, slots=True)
class _Widths:
    """How wide a column has to be: for what is never broken (`fixed`), for the words of its prose, for whole prose."""

    title: str
    fixed: int
    words: int
    prose: int

    @classmethod
    def of(cls, title: str, cells: Sequence[object]) -> _Widths:
        """Return the widths that a column with these cells needs."""
        prose = [cell for cell in cells if isinstance(cell, Prose)]
        fixed = [len(_text(cell)) for cell in cells if not isinstance(cell, Prose)]
        words = max((len(word) for cell in prose for word in _WORDS.findall(cell)), default=0)
        return cls(title, max([len(title), *fixed]), min(words, _LONGEST_WORD), max(map(len, prose), default=0))

    def with_limit(self, limit: int) -> int:
        """Return the width of the column if its prose is broken at `limit` characters, or where a word ends."""
        return max(self.fixed, min(self.prose, max(self.words, limit)))


def _greatest(is_possible: Callable[[int], bool], low: int, high: int) -> int:
    """Return the greatest number from `low` to `high` that is possible; `low` if none is."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_possible(middle) else (low, middle - 1)
    return low


def _text(cell: object) -> str:
    """Return a cell as the renderer prints it, as far as that is of the types that such tables have."""
    if cell is ABSENT:
        return "-"
    return f"0x{cell:x}" if isinstance(cell, format_hints.Hex) else f"{cell}"


def wrap(text: str, width: int) -> list[str]:
    """Return `text` in lines of at most `width` characters, broken after words, or within a word that is too long."""
    lines = [""]
    for word in _WORDS.findall(text):
        if len(lines[-1]) + len(word.rstrip()) > width and lines[-1]:
            lines.append("")
        pieces = [word[at : at + width] for at in range(0, len(word.rstrip()), width)] or [word]
        lines[-1] += pieces[0] if len(pieces) > 1 else word
        lines.extend(pieces[1:])
    return [line.rstrip() for line in lines]
