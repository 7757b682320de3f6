# SPDX-License-Identifier: Apache-2.0
"""Collects the reasons why pages of processes cannot be read; each concerns a whole process or machine."""

from __future__ import annotations

import logging

from throwstack.core.text import escape

log = logging.getLogger(__name__)


class PageLosses:
    """Collects the reasons, each once, and logs each when it is first found."""

    def __init__(self) -> None:
        """Begin without reasons."""
        self._reasons: dict[str, None] = {}

    def say(self, reason: str) -> None:
        """Record a reason, and log it if it is new."""
        if reason not in self._reasons:
            self._reasons[reason] = None
            log.warning("%s", escape(reason, 1024))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return the reasons in the order in which they were found."""
        return tuple(self._reasons)
