# SPDX-License-Identifier: Apache-2.0
"""Lines of the text: folded to 120 columns, and coloured where a terminal shows colours.

A column is what a terminal's character takes: a Chinese one takes two, a combining one none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache

from rich.cells import cell_len, get_character_cell_size
from rich.color import ColorSystem
from rich.style import Style

WIDTH = 120
NARROWEST = 80
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
    """How the text is written: in colours or not, with the stacks of all threads or not, and in how many columns.

    `width` is at least 80: stacks have their columns.
    """

    colours: bool = False
    all_threads: bool = False
    width: int = WIDTH


@dataclass(frozen=True, slots=True)
class Line:
    """A line before it is folded. Its first `label` characters are a label; what does not fit goes on at `indent`.

    `rule` is the character that fills the rest of the last line, if any.
    """

    text: str = ""
    tone: Tone = Tone.PLAIN
    indent: int = 6
    label: int = 0
    rule: str = ""


def labelled(label: str, text: str, tone: Tone = Tone.PLAIN) -> Line:
    """Return a line with a label at its left, `  Where      ftpsrvdata_pg!…`."""
    return Line(f"  {label:<{_LABEL_WIDTH - 2}}{text}", tone, _LABEL_WIDTH, _LABEL_WIDTH)


def below(text: str, tone: Tone = Tone.PLAIN) -> Line:
    """Return a line that goes on under the text of a labelled one."""
    return Line(f"{'':{_LABEL_WIDTH}}{text}", tone, _LABEL_WIDTH)


def rendered(line: Line, style: TextStyle) -> Iterator[str]:
    """Yield `line` as lines of at most `style.width` columns."""
    pieces = list(_folded(line.text, line.indent, max(style.width, NARROWEST)))
    if line.rule:
        pieces[-1] += line.rule * (style.width - cell_len(pieces[-1]))
    for index, piece in enumerate(pieces):
        if not style.colours:
            yield piece
        elif index == 0 and line.label:
            yield _painted(Tone.LABEL, piece[: line.label]) + _painted(line.tone, piece[line.label :])
        else:
            yield _painted(line.tone, piece)


def _folded(text: str, indent: int, width: int) -> Iterator[str]:
    """Yield `text` in pieces that fit, all but the first begin with `indent`."""
    start, at = "", 0
    while (fits := _fitting(text, at, width - len(start))) < len(text):
        end = at + _break(text[at:fits])
        yield (start + text[at:end]).rstrip()
        while text[end : end + 1] == " ":
            end += 1
        start, at = " " * indent, end
    yield start + text[at:] if text[at:] else ""


def _fitting(text: str, at: int, width: int) -> int:
    """Return the end of the longest piece of `text` from `at` on that takes at most `width` columns."""
    if text.isascii():
        return min(at + width, len(text))
    for end in range(at, len(text)):
        width -= get_character_cell_size(text[end])
        if width < 0:
            return end
    return len(text)


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
