# SPDX-License-Identifier: Apache-2.0
"""Finds runs of frames that repeat, so that a deep recursion takes a few lines of the text and not a thousand.

Example: `f+0x7f` 300 times, or `parse+0x12, item+0x40` 150 times in turn. A report as JSON has all frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from throwstack.report.frame_report import FrameReport

_LONGEST_PERIOD = 8
_SHOWN = 2
"""How often a repeated run is shown before the rest is counted."""
_FEWEST = 6
"""How many frames at least are left out: fewer are not worth a line that says so."""


def folded(frames: Sequence[FrameReport]) -> Iterator[tuple[Sequence[FrameReport], Sequence[FrameReport]]]:
    """Yield (frames to show, frames to count): the second repeat those before them, and may be none."""
    begin = at = 0
    while at < len(frames):
        period, times = _repeated(frames, at)
        if (times - _SHOWN) * period < _FEWEST:
            at += 1
            continue
        first, end = at + _SHOWN * period, at + times * period
        yield frames[begin:first], frames[first:end]
        begin = at = end
    if begin < len(frames):
        yield frames[begin:], ()


def _repeated(frames: Sequence[FrameReport], at: int) -> tuple[int, int]:
    """Return how many frames from `at` on repeat at once, and how often they are there, the first time included."""
    best = 1, 1
    for period in range(1, _LONGEST_PERIOD + 1):
        end = at + period
        while end < len(frames) and frames[end].name == frames[end - period].name:
            end += 1
        times = (end - at) // period
        if (times - 1) * period > (best[1] - 1) * best[0]:
            best = period, times
    return best
