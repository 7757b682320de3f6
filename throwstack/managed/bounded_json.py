# SPDX-License-Identifier: Apache-2.0
"""JSON that is read from a dump: it may be anything, so its nesting and its numbers are bounded.

How much text there is, the caller bounds.
"""

from __future__ import annotations

import json

from throwstack.managed.runtime_memory import StructureError

_MAX_DIGITS = 20


def parse_json(text: bytes, what: str) -> object:
    """Return the value that `text` is. A number that is not whole is None.

    Raises:
        StructureError: `text` is no JSON, is nested too deeply, or has a number of more than 20 digits. `what` says in
            the message what should be JSON.
    """
    try:
        return json.loads(text, parse_int=whole_number, parse_float=_no_number, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        message = f"{what} is no JSON"
        raise StructureError(message) from error


def whole_number(text: str) -> int:
    """Return the number that `text` is, decimal or with `0x`. Raises ValueError."""
    if len(text) > _MAX_DIGITS:
        message = "a number that no runtime has"
        raise ValueError(message)
    return int(text, 0)


def _no_number(_text: str) -> None:
    return None
