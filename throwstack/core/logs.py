# SPDX-License-Identifier: Apache-2.0
"""What throwstack's loggers say reaches nobody before every character of it is visible.

Messages carry names of processes, modules and files, and errors quote them: all from the dump. Whoever formats and
shows a log (Volatility, a program that imports us) does so with handlers of its own, after those of the logger that a
message goes through on its way up. So the logger `throwstack`, under which all of ours are, has a handler that shows
nothing and leaves the message escaped.
"""

from __future__ import annotations

import logging
import traceback

from throwstack.core.text import escape

_MAX_MESSAGE, _MAX_LINE = 2048, 1024


class EscapingHandler(logging.Handler):
    """Escapes the message of a record, and the lines of its traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        """Replace what the record says by what may be shown."""
        record.msg, record.args = escape(record.getMessage(), _MAX_MESSAGE), None
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            lines = "".join(traceback.format_exception(*record.exc_info)).splitlines()
            record.exc_text = "\n".join(escape(line, _MAX_LINE) for line in lines)
        # Python shows warnings by itself where nobody has a handler; that we have one must not silence them.
        resort = logging.lastResort
        if resort is not None and record.levelno >= resort.level and not logging.getLogger().handlers:
            resort.handle(record)


def install() -> None:
    """Put the handler on our loggers; once, however often this is called."""
    log = logging.getLogger("throwstack")
    if not any(isinstance(handler, EscapingHandler) for handler in log.handlers):
        log.addHandler(EscapingHandler())
