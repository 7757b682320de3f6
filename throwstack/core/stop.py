# SPDX-License-Identifier: Apache-2.0
"""Defines `Stop`, which the unwinders of x86 and x64 return instead of a caller to say why the walk ends."""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.frames import End


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a walk ends, be it at the start of the thread or earlier.

    `end` is the reason, and `detail` the address or number that belongs to it. `return_address` and `return_slot` (the
    stack address of the return address) are those of the last frame, None if they could not be read.
    """

    end: End
    detail: str = ""
    return_address: int | None = None
    return_slot: int | None = None


def corrupt(detail: str) -> Stop:
    """Return the `Stop` for unwind data that no compiler can have written; `detail` says what is wrong with it."""
    return Stop(End.BAD_UNWIND_DATA, detail)


def unreadable(address: int, what: str) -> Stop:
    """Return the `Stop` for memory at `address` that cannot be read; `what` says what should be there."""
    return Stop(End.UNREADABLE, f"{what} at {address:#x}")
