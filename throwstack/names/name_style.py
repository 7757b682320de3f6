# SPDX-License-Identifier: Apache-2.0
"""The styles in which the names of functions are written in tables (`--names`)."""

from __future__ import annotations

from enum import Enum


class NameStyle(Enum):
    """How the names of functions are written in a table."""

    PLAIN = "plain"
    RAW = "raw"
    """Names are written as the symbols have them, that is, decorated."""
    SIGNATURE = "signature"
    """Functions are written as they are declared, with types and names of parameters, where the symbols have them."""
