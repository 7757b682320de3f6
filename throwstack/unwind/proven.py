# SPDX-License-Identifier: Apache-2.0
"""Tells proven frames of a walk from guessed ones. Only a walk without a guess proves what is not on a stack.

A frame found by a scan is a guess: the next word that can be a return address. A frame found by a frame pointer is a
guess as well where nothing says that the inner function keeps one. Examples: a system call stub in private memory,
which has no unwind data. Its rbp belongs to a function further out, and the step by rbp jumps over all between, such as
UnhandledExceptionFilter. On x86 the code of a function in an image was decoded before its ebp was believed. Of code
that the runtime of .NET has compiled, the runtime says that it keeps one.
"""

from __future__ import annotations

from collections.abc import Sequence

from throwstack.core.frames import Frame, Trust
from throwstack.unwind.target import Target


def is_guess(target: Target, frame: Frame, inner: Frame | None) -> bool:
    """Say whether `frame` was guessed. `inner` is the frame that it called, or None for the first frame of a walk."""
    if frame.trust is Trust.SCAN:
        return True
    if frame.trust is not Trust.FRAME_POINTER or inner is None:
        return False
    if target.keeps_frame_pointer(inner.ip - (0 if inner.is_interrupted else 1)):
        return False
    return target.arch.facts.has_function_table or not target.images.is_code(inner.ip)


def first_guess(target: Target, frames: Sequence[Frame]) -> int | None:
    """Return the index of the first guessed frame of a walk, whose frames are innermost first, or None."""
    for index, frame in enumerate(frames):
        if is_guess(target, frame, frames[index - 1] if index else None):
            return index
    return None


class Guesses:
    """Tells which frames of a walk follow from a guess, as they are met from the innermost on."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._is_in_doubt = False

    def is_in_doubt(self, frame: Frame, inner: Frame | None) -> bool:
        """Say whether `frame`, the next one, was guessed, or one between it and the last saved CONTEXT before it.

        `inner` is the frame that it has called, or None.
        """
        if frame.trust is Trust.CONTEXT:
            self._is_in_doubt = False
        elif is_guess(self._target, frame, inner):
            self._is_in_doubt = True
        return self._is_in_doubt
