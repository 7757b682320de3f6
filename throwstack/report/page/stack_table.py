# SPDX-License-Identifier: Apache-2.0
"""A stack as a table of a page, and as text that can be copied: as WinDbg's `kb` prints it on x86, `k` on x64.

A long stack is in several tables: the first frames and the last ones are open, those between are folded, so that a
browser lays out what is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from throwstack.report.frame_report import FrameReport, Variable
from throwstack.report.page.page_values import address, number
from throwstack.report.page.stack_extents import GUESSED

MOST_FRAMES = 20_000
"""The most frames of a stack on a page."""
_WHOLE = 300
"""A stack of so many frames is in one table."""
_FIRST = 120
_LAST = 60
_CHUNK = 400
_MOST_VALUES = 12


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """A frame in a table. `index` is its place in the stack; `values` are its parameters on one line.

    `tag` says what is special about it: that the exception was thrown there, that the signature names it.
    """

    index: int
    frame: FrameReport
    values: str
    is_guess: bool
    is_name_doubtful: bool
    tag: str = ""

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
    """Frames that follow each other in one table, folded or not."""

    rows: tuple[ShownFrame, ...]
    is_folded: bool = False


@dataclass(frozen=True, slots=True)
class StackTable:
    """A stack on a page. `key` is unique on the page, and the beginning of the ids of its rows.

    `digits` are those of an address. `has_args` says that the words after the return address are shown, `has_returns`
    that return addresses are. `ending` says why the stack ends early, `cut` how many frames are not on the page.
    """

    key: str
    caption: str
    digits: int
    has_args: bool
    has_returns: bool
    chunks: tuple[FrameChunk, ...]
    ending: str = ""
    cut: int = 0
    guesses: int = 0

    @property
    def frame_count(self) -> int:
        """Return the number of frames on the page."""
        return sum(len(chunk.rows) for chunk in self.chunks)

    @property
    def frame_heading(self) -> str:
        """Return WinDbg's name of the column of stack pointers."""
        return "ChildEBP" if self.digits == 8 else "Child-SP"

    def lines(self) -> Iterator[str]:
        """Yield the stack as WinDbg prints it, with its heading."""
        width = self.digits
        words = [" #", self.frame_heading.ljust(width)]
        words += ["RetAddr".ljust(width)] * self.has_returns + ["Args to Child".ljust(26)] * self.has_args
        yield " ".join([*words, "Call Site"])
        for chunk in self.chunks:
            for row in chunk.rows:
                yield self._line(row)
        if self.ending:
            yield f"   {self.ending}"

    def _line(self, row: ShownFrame) -> str:
        frame = row.frame
        words = [number(frame.number), address(frame.sp, self.digits)]
        if self.has_returns:
            words.append(address(frame.return_address, self.digits).ljust(self.digits))
        if self.has_args:
            words.append(" ".join(address(word, 8) for word in frame.args).ljust(26))
        source = f" [{frame.source}]" if frame.source else ""
        mark = " (guessed)" if row.is_guess else ""
        return " ".join([*words, f"{frame.name}{source}{mark}"]).rstrip()


def stack_table(
    key: str,
    caption: str,
    frames: Sequence[FrameReport],
    *,
    digits: int,
    ending: str = "",
    tags: Sequence[tuple[FrameReport | None, str]] = (),
) -> StackTable | None:
    """Return the table of the frames of a stack, innermost first, or None if there are none.

    `tags` are frames, by identity, and what is special about them.
    """
    if not frames:
        return None
    rows = tuple(_row(index, frame, tags) for index, frame in enumerate(frames[:MOST_FRAMES]))
    return StackTable(
        key,
        caption,
        digits,
        digits == 8 and any(frame.args for frame in frames[:MOST_FRAMES]),
        any(frame.return_address is not None for frame in frames[:MOST_FRAMES]),
        tuple(_chunks(rows)),
        ending,
        max(len(frames) - MOST_FRAMES, 0),
        sum(row.is_guess for row in rows),
    )


def _row(index: int, frame: FrameReport, tags: Sequence[tuple[FrameReport | None, str]]) -> ShownFrame:
    shown = ", ".join(_value(variable) for variable in frame.parameters[:_MOST_VALUES])
    if len(frame.parameters) > _MOST_VALUES:
        shown += ", …"
    tag = next((tag for tagged, tag in tags if tagged is frame), "")
    return ShownFrame(index, frame, shown, frame.trust == GUESSED, frame.symbols.endswith("?"), tag)


def _value(variable: Variable) -> str:
    return f"{variable.name} = {variable.text or '?'}"


def _chunks(rows: tuple[ShownFrame, ...]) -> Iterator[FrameChunk]:
    if len(rows) <= _WHOLE:
        yield FrameChunk(rows)
        return
    yield FrameChunk(rows[:_FIRST])
    end = len(rows) - _LAST
    for start in range(_FIRST, end, _CHUNK):
        yield FrameChunk(rows[start : min(start + _CHUNK, end)], is_folded=True)
    yield FrameChunk(rows[end:])
