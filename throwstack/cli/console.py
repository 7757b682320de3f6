# SPDX-License-Identifier: Apache-2.0
"""Ends our commands with one line instead of a traceback, and with an exit status that says what happened.

Results go to standard output, everything else to standard error. Either may be closed, full, or a pipe whose reader
closes it early (`| head -1`), and its encoding may lack some characters.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NoReturn

from throwstack.cli.exit_status import ExitStatus
from throwstack.core.guard import reason_of


class Parser(argparse.ArgumentParser):
    """An argument parser that exits with 64 for wrong usage, because 2 means that a dump cannot be examined."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit."""
        say(f"{self.format_usage()}{self.prog}: error: {message}")
        self.exit(ExitStatus.WRONG_USAGE)


class _Terminated(BaseException):
    """The exception that SIGTERM raises."""


def run(command: str, work: Callable[[], tuple[int, Iterable[str]]]) -> int:
    """Run `work`, print the lines that it returns, and return the exit status.

    `work` returns the status and the lines. If a signal or an exit ends `work` early, the status says which; if an
    exception does that was not foreseen, it is `CANNOT`, and the traceback is printed. `command` is the name at the
    beginning of messages. Ctrl-C and SIGTERM are raised in `work` as exceptions, so that it removes unfinished files
    and ends the processes that it has started.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    before = _on_sigterm(_raise_terminated)
    try:
        if sys.stdout is None:  # `>&-`: Python found nothing open there
            say(f"{command}: standard output is closed")
            return ExitStatus.CANNOT
        try:
            status, lines = work()
        except SystemExit as ended:  # after --help and --version, and as Volatility ends
            if isinstance(ended.code, str):
                say(ended.code)
            return _print(command, (), int(ended.code is not None) if not isinstance(ended.code, int) else ended.code)
        return _print(command, lines, status)
    except KeyboardInterrupt:
        say(f"{command}: interrupted")
        return ExitStatus.INTERRUPTED
    except _Terminated:
        say(f"{command}: ended by SIGTERM")
        return ExitStatus.TERMINATED
    except Exception as error:  # noqa: BLE001 Python would end with 1, which says that nobody is stuck
        for line in traceback.format_exception(error):
            say(line.rstrip("\n").replace("\x1b", r"\x1b"))
        say(f"{command}: {reason_of(error)}: a defect of throwstack")
        return ExitStatus.CANNOT
    finally:
        _on_sigterm(before)


def _print(command: str, lines: Iterable[str], status: int) -> int:
    """Print lines and return `status`, or `CANNOT` if printing fails. A reader that closes the pipe is no failure."""
    try:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()
    except OSError as error:
        return ExitStatus.CANNOT if is_output_failure(command, error) else status
    return status


def say(message: str) -> None:
    """Write a line to standard error, if that is open."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()


def _raise_terminated(_number: int, _frame: object) -> NoReturn:
    raise _Terminated


def _on_sigterm(handler: signal._HANDLER) -> signal._HANDLER:
    """Set the handler of SIGTERM and return the previous one; outside the main thread, do nothing and return None."""
    if threading.current_thread() is not threading.main_thread() or handler is None:
        return None
    return signal.signal(signal.SIGTERM, handler)


def is_output_failure(command: str, error: OSError) -> bool:
    """Close standard output after `error`. Print the error and return True, unless the reader has closed the pipe."""
    _give_output_up()
    if isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL):
        return False
    say(f"{command}: standard output: {error.strerror or error}")
    return True


def _give_output_up() -> None:
    """Discard buffered output. Python would otherwise try to write it again at exit, and report the error."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
