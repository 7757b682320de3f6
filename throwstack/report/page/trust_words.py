# SPDX-License-Identifier: Apache-2.0
"""What a page says of how frames were found, and of where names come from: the words of the reports, explained."""

from __future__ import annotations

from collections.abc import Iterable

from throwstack.core.frames import Trust
from throwstack.report.frame_report import INLINE, LEFT_OUT, FrameReport
from throwstack.report.managed_report import RECORDED

_TRUST = {
    Trust.CONTEXT.value: "a saved CONTEXT or a trap frame has its registers: the walk began there",
    Trust.CFI.value: "the compiler's unwind data led to it",
    Trust.FPO.value: "the FPO data of the function that it called led to it",
    Trust.FRAME_POINTER.value: "the chain of saved frame pointers led to it, and its return address was checked",
    Trust.PROLOGUE.value: "the instructions of the function that it called were followed to find it",
    Trust.SCAN.value: "a guess: the next word on the stack that can be a return address",
    INLINE: "the compiler put this function into the one of the next frame",
    LEFT_OUT: "frames of a deep recursion, which are counted but not listed",
    RECORDED: "the exception object of .NET recorded it",
}
"""The words in the column "found by", in the order in which they are explained."""


def explained(frames: Iterable[FrameReport]) -> list[tuple[str, str]]:
    """Return the words that say how `frames` were found, those that occur, each with its explanation."""
    found = {frame.trust for frame in frames}
    return [(word, text) for word, text in _TRUST.items() if word in found]
