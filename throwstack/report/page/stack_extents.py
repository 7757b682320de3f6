# SPDX-License-Identifier: Apache-2.0
"""Which part of a stack each frame has, from the stack pointers in a report.

On x64 a frame begins at its Child-SP and ends where that of its caller begins. On x86 a report has WinDbg's ChildEBP,
the address just below the return address: a frame ends with its return address, and begins where the frame that it
called ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from throwstack.report.frame_report import INLINE, LEFT_OUT, FrameReport

GUESSED = "scan"
"""The trust of a frame that is a guess."""
_ESP = "esp"
_MOST_OWN = 1 << 20
"""A first frame that is larger than this is not believed."""


@dataclass(frozen=True, slots=True)
class FrameExtent:
    """A frame and its part of the stack: `low` <= address < `high`. `index` is that of the frame in its walk."""

    index: int
    frame: FrameReport
    low: int
    high: int

    @property
    def size(self) -> int:
        """Return the number of bytes."""
        return self.high - self.low

    @property
    def is_guessed(self) -> bool:
        """Say whether the frame was guessed."""
        return self.frame.trust == GUESSED

    @property
    def is_left_out(self) -> bool:
        """Say whether this is not one frame but many of a recursion, which the report leaves out."""
        return self.frame.trust == LEFT_OUT


def extents_of(frames: Sequence[FrameReport], *, is_x86: bool) -> tuple[list[FrameExtent], int]:
    """Return the extents of `frames`, lowest first, and how many frames have none.

    Inlined functions have no frame of their own and are not counted. Frames whose stack pointer is below that of the
    frame before are on another stack, or the stack is damaged.
    """
    placed: list[tuple[int, FrameReport]] = []
    skipped = 0
    for index, frame in enumerate(frames):
        if frame.trust == INLINE:
            continue
        if placed and frame.sp < placed[-1][1].sp:
            skipped += 1
        else:
            placed.append((index, frame))
    return list(_x86(placed) if is_x86 else _x64(placed)), skipped


def _x86(placed: Sequence[tuple[int, FrameReport]]) -> Iterator[FrameExtent]:
    for position, (index, frame) in enumerate(placed):
        high = frame.sp + 8
        if position:
            low = min(placed[position - 1][1].sp + 8, high)
        else:
            esp = frame.registers.get(_ESP, frame.sp)
            low = esp if 0 <= frame.sp - esp < _MOST_OWN else frame.sp
        if frame.trust == LEFT_OUT and position + 1 < len(placed):
            # Where the last of the frames that were left out ends is not known; the next frame's ChildEBP is.
            high = max(low, placed[position + 1][1].sp)
        yield FrameExtent(index, frame, int(low), int(high))


def _x64(placed: Sequence[tuple[int, FrameReport]]) -> Iterator[FrameExtent]:
    for position, (index, frame) in enumerate(placed):
        high = placed[position + 1][1].sp if position + 1 < len(placed) else frame.sp + 8
        yield FrameExtent(index, frame, int(frame.sp), int(high))
