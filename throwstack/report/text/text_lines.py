# SPDX-License-Identifier: Apache-2.0
"""Lines of the text: folded to 120 columns, and coloured where a terminal shows colours.

A column is what a terminal's character takes: a Chinese one takes two, a combining one none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache

from rich.cells import cell_len, chop_cells
from rich.color import ColorSystem
from rich.style import Style

WIDTH = 120
_LABEL_WIDTH = 13


class Tone(Enum):
    """What a line, or a part of one, is. The value is its colour, as rich spells it."""

    PLAIN = ""
    HEADING = "bold"
    CRASH = "bold red"
    LABEL = "cyan"
    FAINT = "dim"
    DOUBT = "yellow"


@dataclass(frozen=True, slots=True)
class TextStyle:
    """How the text is written: with the colours of a terminal or without, and with the stacks of all threads or not."""

    colours: bool = False
    all_threads: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line before it is folded. Its first `label` characters are a label; what does not fit goes on at `indent`."""

    text: str = ""
    tone: Tone = Tone.PLAIN
    indent: int = 6
    label: int = 0


def labelled(label: str, text: str, tone: Tone = Tone.PLAIN) -> Line:
    """Return a line with a label at its left, `  Where      ftpsrvdata_pg!…`."""
    return Line(f"  {label:<{_LABEL_WIDTH - 2}}{text}", tone, _LABEL_WIDTH, _LABEL_WIDTH)


def below(text: str, tone: Tone = Tone.PLAIN) -> Line:
    """Return a line that goes on under the text of a labelled one."""
    return Line(f"{'':{_LABEL_WIDTH}}{text}", tone, _LABEL_WIDTH)


def rendered(line: Line, style: TextStyle) -> Iterator[str]:
    """Yield `line` as lines of at most 120 columns."""
    for index, piece in enumerate(_folded(line.text, line.indent)):
        if not style.colours:
            yield piece
        elif index == 0 and line.label:
            yield _painted(Tone.LABEL, piece[: line.label]) + _painted(line.tone, piece[line.label :])
        else:
            yield _painted(line.tone, piece)


def _folded(text: str, indent: int) -> Iterator[str]:
    """Yield `text` in pieces that fit, all but the first begin with `indent`."""
    start = ""
    while cell_len(start + text) > WIDTH:
        piece = chop_cells(text, WIDTH - len(start))[0]
        end = _break(piece)
        yield (start + text[:end]).rstrip()
        text, start = text[end:].lstrip(), " " * indent
    yield start + text if text else ""


def _break(piece: str) -> int:
    r"""Return where to break a line that begins with `piece`: at a space in its second half, or after `\` or `,`."""
    half = len(piece) // 2
    space = piece.rfind(" ", half)
    if space >= 0 and piece[:space].strip():
        return space
    return max(piece.rfind(mark, half) for mark in "\\/,;<") + 1 or len(piece)


def _painted(tone: Tone, text: str) -> str:
    return _style(tone).render(text, color_system=ColorSystem.STANDARD) if text.strip() and tone.value else text


@cache
def _style(tone: Tone) -> Style:
    return Style.parse(tone.value)
