# SPDX-License-Identifier: Apache-2.0
"""Names of frames: which address of a frame to look up, and how a frame reads."""

from __future__ import annotations

from throwstack.core.frames import Frame
from throwstack.names.symbols import Name, Symbols


def name_of(symbols: Symbols, frame: Frame) -> Name:
    """Return the name of `frame`: of its ip where that was saved by the CPU, of the call before it otherwise."""
    return symbols.name(frame.ip, is_return_address=not frame.is_interrupted)


def symbol_of(symbols: Symbols, frame: Frame) -> str:
    """Return the bare function name of `frame`, or ""."""
    return name_of(symbols, frame).symbol


def names_of(symbols: Symbols, frame: Frame) -> tuple[Name, ...]:
    """Return the names of all functions at `frame`: inlined ones first, innermost outwards, then the frame's own."""
    return symbols.frames_at(frame.ip, is_return_address=not frame.is_interrupted)
