# SPDX-License-Identifier: Apache-2.0
"""The exit statuses that all our commands share."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What a command's exit status says."""

    DONE = 0
    """Examined, and what was asked for is there: stuck threads, a dump that serves, all dumps of a scan."""
    NOTHING = 1
    """Examined, and nothing is there: no stuck thread; some dumps of a scan failed."""
    CANNOT = 2
    """The dump cannot be examined, or the results cannot be written."""
    IN_PART = 3
    """Examined in part: crashes may be hidden."""
    WRONG_USAGE = 64
    INTERRUPTED = 130
    """Ended by Ctrl-C."""
    TERMINATED = 143
    """Ended by SIGTERM."""
