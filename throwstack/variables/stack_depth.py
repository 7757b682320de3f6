# SPDX-License-Identifier: Apache-2.0
"""Follows the stack pointer and the jumps of one function, instruction by instruction as they are in memory.

It knows how far the stack pointer is below the return address, as long as constants are added to it. After an
instruction that does not go on (`ret`, `jmp`) it is as at a jump to there that was seen before; if there was none, it
is as in the body: at the first jump or call of the function. A called function is taken to leave its arguments.
"""

from __future__ import annotations

import re

from throwstack.core.registers import Arch

_MOST_JUMPS = 4096
_CONSTANT = re.compile(r"[er]sp, (0x[0-9a-f]+|\d+)$")
_DIRECT = re.compile(r"0x[0-9a-f]+$|\d+$")
_STACK_POINTERS = ("esp", "rsp")


class StackDepth:
    """The depth of the stack at the instruction that comes next, and where the function may jump back to."""

    def __init__(self, arch: Arch, code: bytes) -> None:
        """`code` is the function."""
        self._word = arch.pointer_size
        self._code = code
        self._depth: int | None = 0
        self._body: int | None = None
        self._is_in_body = False
        self._does_go_on = True
        self._has_frame_pointer = False
        self._at_labels: dict[int, int | None] = {}
        self._back: list[tuple[int, int]] = []
        """The jumps backwards: from where, and to where."""
        self.ends_with_jump = False
        """Whether the function ends with a jump to another one."""

    def to_slot(self, at: int, base: str, distance: int) -> int | None:
        """Return how far what is at `distance` from `base` is above the return address, at the instruction at `at`."""
        if base == "ebp":
            return distance - self._word if self._has_frame_pointer else None
        depth = self._depth_at(at)
        return distance - depth if base in _STACK_POINTERS and depth is not None else None

    def follow(self, at: int, mnemonic: str, operands: str) -> None:
        """Follow the instruction at the offset `at`."""
        self._depth = self._depth_at(at)
        self._does_go_on = True
        if mnemonic[0] == "j" or mnemonic == "ret":
            self._jump(at, mnemonic, operands)
        elif mnemonic == "call":
            self._enter_body()
        elif mnemonic in ("push", "pop") and self._depth is not None:
            self._depth += self._word if mnemonic == "push" else -self._word
        elif mnemonic in ("sub", "add") and operands.startswith(_STACK_POINTERS):
            self._add(mnemonic, operands)
        elif operands == "ebp, esp" and mnemonic == "mov":
            self._has_frame_pointer = self._depth == self._word
        elif mnemonic in ("mov", "lea", "and", "leave") and (mnemonic == "leave" or operands.startswith("esp")):
            self._depth = None

    def earliest_after(self, at: int) -> int:
        """Return the lowest offset that may run after the instruction at `at`, by jumps backwards."""
        earliest, before = at, at + 1
        while earliest < before:
            before = earliest
            earliest = min((target for source, target in self._back if source >= before), default=before)
            earliest = min(earliest, before)
        return earliest

    def _depth_at(self, at: int) -> int | None:
        return self._depth if self._does_go_on else self._at_labels.get(at, self._body)

    def _enter_body(self) -> None:
        if not self._is_in_body:
            self._is_in_body, self._body = True, self._depth

    def _add(self, mnemonic: str, operands: str) -> None:
        found = _CONSTANT.match(operands)
        if found is None or self._depth is None:
            self._depth = None
        else:
            value = int(found[1], 0)
            value -= 1 << 8 * self._word if value >> (8 * self._word - 1) else 0
            self._depth += value if mnemonic == "sub" else -value

    def _jump(self, at: int, mnemonic: str, operands: str) -> None:
        if mnemonic != "ret" and (self._is_in_body or mnemonic != "jmp"):
            self._enter_body()
        self._does_go_on = mnemonic not in ("jmp", "ret")
        if mnemonic == "ret":
            return
        if _DIRECT.match(operands):
            target = int(operands, 0)
            if not 0 <= target < len(self._code):
                self.ends_with_jump |= mnemonic == "jmp"
            elif target > at:
                self._at_labels.setdefault(target, self._depth)
            else:
                self._jumps_back(at, target)
        elif self._is_switch(at, operands):
            self._jumps_back(at, 0)
        else:
            self.ends_with_jump = True

    def _jumps_back(self, at: int, target: int) -> None:
        if len(self._back) < _MOST_JUMPS:
            self._back.append((at, target))
        else:
            self._back[-1] = (len(self._code), 0)

    def _is_switch(self, at: int, operands: str) -> bool:
        """Say whether an indirect jump may stay in the function: by a table, or by a register of x64 without REX.W."""
        if "[" in operands:
            return "*" in operands
        return self._word == 8 and self._code[at] & 0xF8 != 0x48
