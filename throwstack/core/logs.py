# SPDX-License-Identifier: Apache-2.0
"""Escapes the log messages of throwstack before any handler shows them.

Messages, and the errors in them, contain names of processes, modules and files from the dump, which may be hostile. The
program that imports throwstack (Volatility, for example) has the handlers that show messages, on the root logger.
Python passes a message to the handlers of its own logger first, and then to the handlers of the loggers above. So the
logger `throwstack`, the parent of all loggers of this package, gets a handler that shows nothing and replaces the
message by its escaped form.
"""

from __future__ import annotations

import logging
import traceback

from throwstack.core.text import escape

_MAX_MESSAGE, _MAX_LINE = 2048, 1024


class EscapingHandler(logging.Handler):
    """A log handler that escapes the message of each record, and the lines of its traceback, and shows nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        """Replace message and traceback of `record` by their escaped form."""
        record.msg, record.args = escape(record.getMessage(), _MAX_MESSAGE), None
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            lines = "".join(traceback.format_exception(*record.exc_info)).splitlines()
            record.exc_text = "\n".join(escape(line, _MAX_LINE) for line in lines)
        # Python prints warnings itself if no logger has a handler. This handler counts as one and would silence them.
        resort = logging.lastResort
        if resort is not None and record.levelno >= resort.level and not logging.getLogger().handlers:
            resort.handle(record)


def install() -> None:
    """Add the handler to the logger `throwstack`, unless it is there already."""
    log = logging.getLogger("throwstack")
    if not any(isinstance(handler, EscapingHandler) for handler in log.handlers):
        log.addHandler(EscapingHandler())
