# SPDX-License-Identifier: Apache-2.0
"""The styles in which tables spell functions (`--names`)."""

from __future__ import annotations

from enum import Enum


class NameStyle(Enum):
    """How functions are named in a table."""

    PLAIN = "plain"
    RAW = "raw"
    """As the symbols spell them: decorated."""
    SIGNATURE = "signature"
    """With the types of their parameters, where the symbols give them."""
