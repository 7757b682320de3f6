# SPDX-License-Identifier: Apache-2.0
"""The text of the message box that a thread shows.

MessageBox, MessageBoxEx and MessageBoxTimeout take (owner, text, caption, type, …); winuser.h. On x86 these are on the
stack. On x64 they are passed in registers, which are overwritten by the time the box waits.
"""

from __future__ import annotations

from throwstack.core.frames import Walk
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.text import ansi_at, wide_at
from throwstack.names.frame_names import symbol_of
from throwstack.unwind.target import Target

_BOXES = {"MessageBoxA", "MessageBoxW", "MessageBoxExA", "MessageBoxExW", "MessageBoxTimeoutA", "MessageBoxTimeoutW"}
_TEXT_ARGUMENT = 8
"""Distance from the slot of the return address to the second argument."""


def box_text(target: Target, walk: Walk | None) -> str:
    """Return the text that the innermost MessageBox frame of `walk` shows, escaped; empty if there is none."""
    if walk is None or not target.arch.facts.arguments_on_stack:
        return ""
    for frame in walk.frames:
        symbol = symbol_of(target.symbols, frame)
        if symbol not in _BOXES or frame.return_slot is None:
            continue
        read = wide_at if symbol.endswith("W") else ansi_at
        try:
            return read(target.memory, target.memory.u32(frame.return_slot + _TEXT_ARGUMENT))
        except MemoryUnreadable:
            continue
    return ""
