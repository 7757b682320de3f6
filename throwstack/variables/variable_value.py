# SPDX-License-Identifier: Apache-2.0
"""`VariableValue`: a parameter or local variable of a frame, with its value or the reason why that is not known."""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.errors import ThrowstackError


@dataclass(frozen=True, slots=True)
class VariableValue:
    """A variable of a function on a stack. Every string is escaped and has a limited length.

    `type` is written as in C++. `value` are the bytes of an integer, pointer or enumeration as an unsigned number; it
    is None for other types. `text` is the value as it is read by a person: `0x80004003 E_POINTER`, `{x=1, y=2}`.
    `source` says where the value was: `[ebp+8]`, `rbx`. If the value is not known, `text` is "", and `reason` says why.
    """

    name: str
    type: str
    value: int | None = None
    text: str = ""
    source: str = ""
    reason: str = ""
    is_parameter: bool = False

    @property
    def is_known(self) -> bool:
        """Say whether the value is known."""
        return not self.reason


class NotShown(ThrowstackError):
    """The value of a variable is not known; the message is the reason, for display."""
