# SPDX-License-Identifier: Apache-2.0
"""Why a frame's caller cannot be given: the one error value of the x64 unwinder."""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.frames import End


@dataclass(frozen=True, slots=True)
class Stop:
    """The end of a stack, good or bad. `return_address` and `return_slot` stand where they could be read."""

    end: End
    detail: str = ""
    return_address: int | None = None
    return_slot: int | None = None


def corrupt(detail: str) -> Stop:
    """Return the stop for unwind data that cannot be what a compiler wrote."""
    return Stop(End.BAD_UNWIND_DATA, detail)


def unreadable(address: int, what: str) -> Stop:
    """Return the stop for `what` lying in memory that is not there."""
    return Stop(End.UNREADABLE, f"{what} at {address:#x}")
