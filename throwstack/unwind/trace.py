# SPDX-License-Identifier: Apache-2.0
"""The trace of stack walks: why each frame's caller was taken, in lines of the logger `throwstack.trace`.

`vol -vvv` shows the lines. Volatility lets every message pass its root logger, whatever its level, and only the
handlers refuse what is not wanted. So a walk asks `is_on` once, which looks at the handlers, and a walk that is not
traced makes no text. `docs/tracing.md` explains the lines.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from throwstack.core.logs import EscapingHandler

LEVEL = logging.DEBUG - 1
"""The level of the lines: the first one that Volatility shows with `-vvv` and not with `-vv`."""

_LOG = logging.getLogger("throwstack.trace")


def is_on() -> bool:
    """Say whether any handler would show a line of the trace. Ask once for each walk."""
    if not _LOG.isEnabledFor(LEVEL):
        return False
    logger: logging.Logger | None = _LOG
    while logger is not None:
        if any(handler.level <= LEVEL and not isinstance(handler, EscapingHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def say(lines: Iterable[str]) -> None:
    """Write lines to the trace. They are escaped as all messages of throwstack are."""
    for line in lines:
        _LOG.log(LEVEL, "%s", line)


def step(ip: int, rule: str, outcome: str) -> None:
    """Write one line: the frame at `ip`, the rule that was applied to it, and what came of it."""
    say((f"{ip:#x}: {rule}: {outcome}",))
