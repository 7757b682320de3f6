# SPDX-License-Identifier: Apache-2.0
"""Collects why pages of processes cannot be read. Each reason concerns a whole process or machine and is said once."""

from __future__ import annotations

import logging

from throwstack.core.text import escape

log = logging.getLogger(__name__)


class PageLosses:
    """Collects the reasons, and logs each when it is found."""

    def __init__(self) -> None:
        """Begin without reasons."""
        self._reasons: dict[str, None] = {}

    def say(self, reason: str) -> None:
        """Note a reason."""
        if reason not in self._reasons:
            self._reasons[reason] = None
            log.warning("%s", escape(reason, 1024))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return the reasons in the order in which they were found."""
        return tuple(self._reasons)
