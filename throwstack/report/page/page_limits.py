# SPDX-License-Identifier: Apache-2.0
"""How much of a report is on a page: a browser has to open it, whatever the dump says.

A report is bounded itself, but by what a dump may have: hundreds of stuck threads, each with several stacks of a
thousand frames, whose names may have thousands of letters. So the parts that come first are on the page as far as they
fit, and the page says what is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from throwstack.report.crash_report import CrashReport
from throwstack.report.frame_report import FrameReport

MOST_CRASHES = 100
"""The most stuck threads that have all their parts on the page; the table at its top has all of them."""
MOST_GROUPS = 200
"""The most stacks of other threads of a process."""
MOST_LETTERS = 40_000_000
"""How many letters the stacks on a page have at most, about."""
_ROW = 300
"""What a frame takes besides its texts, and half of what a variable takes."""


def frames_of(crash: CrashReport) -> Iterator[FrameReport]:
    """Yield the frames of all stacks of a crash."""
    walks = (crash.throwing, crash.blocked, crash.kernel_stack, *(one.stack for one in crash.exceptions))
    for walk in walks:
        yield from walk.frames if walk is not None else ()
    for exception in crash.exceptions:
        yield from exception.logical_stack


def letters_of(frames: Iterable[FrameReport]) -> int:
    """Return how many letters frames take on a page, where they are in a table and as text."""
    letters = 0
    for frame in frames:
        letters += _ROW + 2 * (len(frame.name) + len(frame.source) + len(frame.signature) + len(frame.note))
        for variable in (*frame.parameters, *frame.locals):
            letters += _ROW // 2 + 2 * len(variable.text) + len(variable.name) + len(variable.type)
    return letters


def fitting(sizes: Sequence[int], room: int) -> int:
    """Return how many of the first items fit into `room`."""
    for count, size in enumerate(sizes):
        room -= size
        if room < 0:
            return count
    return len(sizes)
