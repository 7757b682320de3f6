# SPDX-License-Identifier: Apache-2.0
"""The class that every error of throwstack derives from, so that one `except` catches all of them."""

from __future__ import annotations


class ThrowstackError(Exception):
    """Throwstack cannot provide what was asked for. The message is a sentence for the user and says why."""
