# SPDX-License-Identifier: Apache-2.0
"""Why a step of a stack walk has no result. Both unwinders, and what they look up, return this one error value."""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.frames import End


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a walk ends, at the start of the thread or before it, and the address or figure that belongs to the reason.

    `return_address` and `return_slot` are those of the frame that has no caller, if they could be read.
    """

    end: End
    detail: str = ""
    return_address: int | None = None
    return_slot: int | None = None


def corrupt(detail: str) -> Stop:
    """Return the stop for unwind data that no compiler can have written."""
    return Stop(End.BAD_UNWIND_DATA, detail)


def unreadable(address: int, what: str) -> Stop:
    """Return the stop for `what`, whose memory at `address` cannot be read."""
    return Stop(End.UNREADABLE, f"{what} at {address:#x}")
