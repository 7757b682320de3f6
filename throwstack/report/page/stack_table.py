# SPDX-License-Identifier: Apache-2.0
"""A stack as a table of a page, and as text that can be copied: as the text of a report has it.

A stack may be in several tables. Of a long one, frames that repeat others (a deep recursion) are folded, and all but
the first and the last frames. So a browser lays out what is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from throwstack.report.frame_report import FrameReport, Variable
from throwstack.report.page.page_values import number
from throwstack.report.page.stack_extents import GUESSED
from throwstack.report.text.recursion import folded
from throwstack.report.text.stack_lines import stack_lines

MOST_FRAMES = 20_000
"""The most frames of a stack on a page."""
_ALL = 100
"""Of a stack with no more frames than this, all are open."""
_WHOLE = 300
"""Of a stack with more frames than this, those in the middle are folded."""
_FIRST = 120
_LAST = 60
_CHUNK = 400
_MOST_VALUES = 12
_REPEATED = "more frames of the same functions"
_MIDDLE = "frames"

Tags = Sequence[tuple[FrameReport | None, str]]
"""Frames, by identity, and what is special about them."""


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """A frame in a table. `index` is its place in the stack; `values` are its parameters on one line.

    `tag` says what is special about it: that the exception was thrown there, that the signature names it.
    """

    index: int
    frame: FrameReport
    values: str
    tag: str = ""

    @property
    def is_guess(self) -> bool:
        """Say whether the frame was guessed."""
        return self.frame.trust == GUESSED

    @property
    def is_name_doubtful(self) -> bool:
        """Say whether the name is only that of the nearest symbol."""
        return self.frame.symbols.endswith("?")

    @property
    def kind(self) -> str:
        """Return the class of the row in the style, or ""."""
        if self.is_guess:
            return "guess"
        return "tagged" if self.tag else "inline" if self.frame.is_inline else ""

    @property
    def has_variables(self) -> bool:
        """Say whether there is anything to unfold."""
        return bool(self.frame.parameters or self.frame.locals)


@dataclass(frozen=True, slots=True)
class FrameChunk:
    """Frames that follow each other in one table. If they are folded, `label` says what they are."""

    rows: tuple[ShownFrame, ...]
    label: str = ""


@dataclass(frozen=True, slots=True)
class StackTable:
    """A stack on a page. `key` is unique on the page, and the beginning of the ids of its rows.

    `is_64bit` says how wide addresses are. `has_args` says that the words after the return address are shown,
    `has_returns` that return addresses are. `ending` says why the stack ends early, `cut` how many frames are not on
    the page. Frames from the number `elsewhere` on are those of the stack that threw. `text` is the same stack for
    copying.
    """

    key: str
    caption: str
    is_64bit: bool
    has_args: bool
    has_returns: bool
    chunks: tuple[FrameChunk, ...]
    text: tuple[str, ...]
    ending: str = ""
    cut: int = 0
    elsewhere: int | None = None

    @property
    def frame_count(self) -> int:
        """Return the number of frames on the page."""
        return sum(len(chunk.rows) for chunk in self.chunks)

    @property
    def guesses(self) -> int:
        """Return how many frames were guessed."""
        return sum(row.is_guess for chunk in self.chunks for row in chunk.rows)

    @property
    def frame_heading(self) -> str:
        """Return WinDbg's name of the column of stack pointers."""
        return "Child-SP" if self.is_64bit else "ChildEBP"


def stack_table(
    key: str,
    caption: str,
    frames: Sequence[FrameReport],
    *,
    is_64bit: bool,
    ending: str = "",
    tags: Tags = (),
    elsewhere: int = 0,
) -> StackTable | None:
    """Return the table of the frames of a stack, innermost first, or None if there are none.

    The `elsewhere` outermost frames are those of the stack that threw, and are not shown again.
    """
    if not frames:
        return None
    own = frames[: len(frames) - elsewhere]
    shown = own[:MOST_FRAMES]
    rest = frames[len(own)].number if elsewhere else None
    text = [line.text.removeprefix("  ") for line in stack_lines(shown, is_64bit=is_64bit, values=not elsewhere)]
    if rest is not None:
        text.append(f"From frame {number(rest)} on it is the stack that threw.")
    return StackTable(
        key,
        caption,
        is_64bit,
        not is_64bit and any(frame.args for frame in shown),
        any(frame.return_address is not None for frame in shown),
        tuple(_chunks([_row(index, frame, tags) for index, frame in enumerate(shown)])),
        (*text, ending) if ending else tuple(text),
        ending,
        len(own) - len(shown),
        rest,
    )


def _row(index: int, frame: FrameReport, tags: Tags) -> ShownFrame:
    shown = ", ".join(_value(variable) for variable in frame.parameters[:_MOST_VALUES])
    if len(frame.parameters) > _MOST_VALUES:
        shown += ", …"
    return ShownFrame(index, frame, shown, next((tag for tagged, tag in tags if tagged is frame), ""))


def _value(variable: Variable) -> str:
    return f"{variable.name} = {variable.text or '?'}"


def _chunks(rows: Sequence[ShownFrame]) -> Iterator[FrameChunk]:
    """Yield the tables of a stack."""
    kinds = _kinds(rows)
    for kind, group in groupby(range(len(rows)), key=kinds.__getitem__):
        part = [rows[index] for index in group]
        step = _CHUNK if kind == _MIDDLE else len(part)
        for start in range(0, len(part), step):
            chunk = tuple(part[start : start + step])
            span = f"{number(chunk[0].frame.number)} to {number(chunk[-1].frame.number)}"
            yield FrameChunk(chunk, f"{len(chunk):,} {kind}, {span}" if kind else "")


def _kinds(rows: Sequence[ShownFrame]) -> list[str]:
    """Return of each frame whether it is folded, and as what: "" is not."""
    kinds: list[str] = []
    if len(rows) <= _ALL:
        return [""] * len(rows)
    for shown, counted in folded([row.frame for row in rows]):
        kinds += [""] * len(shown) + [_REPEATED] * len(counted)
    if kinds.count("") > _WHOLE:
        middle = range(_FIRST, len(kinds) - _LAST)
        kinds = [kind or (_MIDDLE if index in middle else "") for index, kind in enumerate(kinds)]
    return kinds
