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
    """Names are written with the types of their parameters, where the symbols have them."""
