# SPDX-License-Identifier: Apache-2.0
"""Names of frames.

A frame's instruction pointer is looked up as it is if the CPU stopped there. If it is a return address, the call before
it is looked up instead: `throwstack.names.symbols.Symbols.name` says why.
"""

from __future__ import annotations

from throwstack.core.frames import Frame
from throwstack.names.symbols import Name, Symbols


def name_of(symbols: Symbols, frame: Frame) -> Name:
    """Return the name of the function of `frame`."""
    return symbols.name(frame.ip, is_return_address=not frame.is_interrupted)


def symbol_of(symbols: Symbols, frame: Frame) -> str:
    """Return the name of the function of `frame` without module and offset; "" if it has none."""
    return name_of(symbols, frame).symbol


def names_of(symbols: Symbols, frame: Frame) -> tuple[Name, ...]:
    """Return the names of all functions at `frame`: inlined ones from the innermost outwards, then its own function."""
    return symbols.frames_at(frame.ip, is_return_address=not frame.is_interrupted)
