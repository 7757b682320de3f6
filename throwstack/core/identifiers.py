# SPDX-License-Identifier: Apache-2.0
"""Reads the numbers that a user types: IDs of processes and threads, and the address of a CONTEXT.

They are read as a user of WinDbg or of a task list writes them: digits only are decimal; `0x`, a letter from a to f, or
a backtick make a number hexadecimal (`a04`, `0xa04` and `2564` are the same process). An address as WinDbg prints it
has 8 or 16 digits, of which all may happen to be decimal ones (`00123456`): it is hexadecimal in any case.
"""

from __future__ import annotations

import re

_HEXADECIMAL = re.compile(r"(?:0[xX])?[0-9a-fA-F]+")
_MAX_ID = (1 << 32) - 1
_MAX_ADDRESS = (1 << 64) - 1
_ADDRESS_DIGITS = frozenset({8, 16})


def identifier(text: str) -> int:
    """Return the process or thread ID that `text` names; raises ValueError with a text for the user."""
    value = _number(text, "write 2564, 0xa04 or a04")
    if value > _MAX_ID:
        message = f"{text!r} has more than 32 bits"
        raise ValueError(message)
    return value


def address(text: str) -> int:
    """Return the address that `text` names; raises ValueError, with a message for the user, if it is none."""
    is_printed = text.isdigit() and len(text) in _ADDRESS_DIGITS
    value = _number(f"0x{text}" if is_printed else text, "write 0x45ba888, 045ba888 or 000000e3`b42fd0a0")
    if value > _MAX_ADDRESS:
        message = f"{text!r} has more than 64 bits"
        raise ValueError(message)
    return value


def _number(text: str, examples: str) -> int:
    digits = text.replace("`", "")
    if not _HEXADECIMAL.fullmatch(digits):
        message = f"{text!r} is no number: {examples}"
        raise ValueError(message)
    return int(digits, 10 if text.isdigit() else 16)
