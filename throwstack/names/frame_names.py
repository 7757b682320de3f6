# SPDX-License-Identifier: Apache-2.0
"""Names of the functions of frames.

If the CPU stopped at a frame's instruction pointer, the function at this address is looked up. If the instruction
pointer is a return address, the function with the call before it is looked up: `throwstack.names.symbols.Symbols.name`
says why.
"""

from __future__ import annotations

from throwstack.core.frames import Frame
from throwstack.names.symbols import Name, Symbols


def name_of(symbols: Symbols, frame: Frame) -> Name:
    """Return the name of the function of `frame`."""
    return symbols.name(frame.ip, is_return_address=not frame.is_interrupted)


def symbol_of(symbols: Symbols, frame: Frame) -> str:
    """Return the name of the function of `frame` without module and offset, or "" if it has no name."""
    return name_of(symbols, frame).symbol


def names_of(symbols: Symbols, frame: Frame) -> tuple[Name, ...]:
    """Return the names of all functions at `frame`.

    Inlined functions come first, from the innermost outwards. The last is the function that has the frame.
    """
    return symbols.frames_at(frame.ip, is_return_address=not frame.is_interrupted)
