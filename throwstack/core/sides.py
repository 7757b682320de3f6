# SPDX-License-Identifier: Apache-2.0
"""The kinds of code that a thread runs, called sides, and which of them a command shows (`--wow64`).

A 32-bit program on 64-bit Windows (WoW64) is two programs in one process: its own 32-bit code, and the 64-bit code that
translates its system calls. Each of its threads has two stacks, two TEBs and two sets of registers, one for each side.
The user code of any other process is all of one side.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from throwstack.core.registers import Arch


class Side(Enum):
    """The kind of code that a frame belongs to; the value is the word that users see."""

    KERNEL = "kernel"
    NATIVE = "native"
    """64-bit user code."""
    X86 = "x86"
    """32-bit user code: that of a WoW64 process, and all user code of a 32-bit Windows."""

    @classmethod
    def of_user_code(cls, arch: Arch) -> Side:
        """Return the side of user code of the architecture `arch`."""
        return cls.X86 if arch is Arch.X86 else cls.NATIVE


Sides = frozenset[Side]
"""The sides to show of a WoW64 process. Any other process has one side, which is shown whatever is selected."""

BOTH: Final[Sides] = frozenset({Side.NATIVE, Side.X86})
SIDES_BY_WORD: Final = {"x86": frozenset({Side.X86}), "native": frozenset({Side.NATIVE}), "both": BOTH}
"""The words that the option `--wow64` accepts, and the sides that they select."""
OLDER_WORDS: Final = {"32": "x86"}
"""Older words that `--wow64` still accepts although no help text shows them, and the words that replace them."""


def sides_of(word: str) -> Sides:
    """Return the sides that a word given to `--wow64` selects; raises KeyError for any other word."""
    return SIDES_BY_WORD[OLDER_WORDS.get(word, word)]
