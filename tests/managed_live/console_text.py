# SPDX-License-Identifier: Apache-2.0
"""Reads what a runtime prints of an unhandled exception: the truth about it.

    Unhandled exception. N.Outer: its message
     ---> N.Inner: its message
       at N.T.M(Int32 number, String& text)
    --- End of stack trace from previous location ---
       at N.T.N()
       --- End of inner exception stack trace ---
       at N.T.O[TItem](TItem item)
     ---> (Inner Exception #1) N.Other: its message
       at N.T.P()<---

.NET Core 2.1 says "Unhandled Exception: ", has the inner exceptions on the line of the outer one, and prints only the
first of an AggregateException. A message can have several lines; what looks like a frame ends it.

Of a stack overflow there is no exception: a line says what happened. On .NET 8 and 10 the stack follows, with the types
of parameters by their whole names, and what repeats printed once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

_HEAD = re.compile(r"Unhandled [Ee]xception[.:] ")
_FRAME = re.compile(r"   at (.*?)\((.*)\)(<---)?")
_PREVIOUS = re.compile(r"--- End of stack trace from previous location( where exception was thrown)? ---")
_END_OF_INNER = "   --- End of inner exception stack trace ---"
_ARROW = " ---> "
_OTHER = re.compile(r" ---> \(Inner Exception #(\d+)\) ")
_CLOSED = "<---"
_OVERFLOWS = ("Stack overflow.", "Process is terminating due to StackOverflowException.")
_REPEAT = re.compile(r"Repeat(?:ed)? (\d+) times:")
_RULE = "--------------------------------"
_BY_WINE = re.compile(r"wine: Unhandled .*\(thread ([0-9a-f]+)\)")
OVERFLOW = "System.StackOverflowException"


class ConsoleTextError(Exception):
    """The text is not what a runtime prints of an unhandled exception."""


@dataclass(frozen=True)
class PrintedFrame:
    """A frame. `method` is the name with its type's, generic parameters included; `parameters` is what is in brackets.

    `is_last_of_earlier`: an earlier stack ends with it, and the exception was thrown again in the next. `times` is how
    often it and the other frames of its block repeat, where that is not once.
    """

    method: str
    parameters: str
    is_last_of_earlier: bool = False
    times: int = 1


@dataclass(frozen=True)
class PrintedException:
    """An exception. `frames` are innermost first; `inner` those of its own, the first of which it wraps."""

    type: str
    message: str | None
    frames: tuple[PrintedFrame, ...] = ()
    inner: tuple[PrintedException, ...] = ()

    def flat(self) -> list[PrintedException]:
        """Return it and all inner ones, depth first."""
        return [self, *(one for inner in self.inner for one in inner.flat())]


@dataclass(frozen=True)
class PrintedCrash:
    """What was printed. `tid` is the thread that Wine names."""

    tid: int
    exception: PrintedException


def parse_console(text: str) -> PrintedCrash:
    """Read the text. Raises `ConsoleTextError`."""
    lines = text.replace("\r\n", "\n").split("\n")
    by_wine = [match for line in lines if (match := _BY_WINE.match(line))]
    if not by_wine:
        message = "Wine names no thread"
        raise ConsoleTextError(message)
    printed = [line for line in lines if not _BY_WINE.match(line)]
    tid = int(by_wine[-1][1], 16)
    for index, line in enumerate(printed):
        if line in _OVERFLOWS:
            frames = tuple(_overflowed(printed[index + 1 :]))
            return PrintedCrash(tid, PrintedException(OVERFLOW, None, frames))
        if match := _HEAD.match(line):
            first = line[match.end() :]
            if "Exception: " in match[0]:
                first = first.replace(_ARROW, f"\n{_ARROW}")
            return PrintedCrash(tid, _Reader([*first.split("\n"), *printed[index + 1 :]]).exception())
    message = "the runtime reports no unhandled exception"
    raise ConsoleTextError(message)


@dataclass
class _Reader:
    """Reads one exception after the other from the lines, the first of which has no mark before the type."""

    lines: list[str]
    at: int = 0
    closed: bool = field(default=False)
    """Whether what was read last ends one of an AggregateException's other exceptions."""

    def exception(self, *, is_inner: bool = False) -> PrintedException:
        """Read an exception with all that belongs to it."""
        head = self._head()
        inner: list[PrintedException] = []
        if self._line.startswith(_ARROW) and not _OTHER.match(self._line) and not self.closed:
            self.lines[self.at] = self._line.removeprefix(_ARROW)
            inner.append(self.exception(is_inner=True))
            if self._line != _END_OF_INNER:
                message = f"an inner exception that does not end: {self._line}"
                raise ConsoleTextError(message)
            self.at += 1
        frames = self._frames()
        # An inner exception's own others cannot be told from those of the one around it, which has none before its end.
        while not self.closed and not (is_inner and not inner) and _OTHER.match(self._line):
            self.lines[self.at] = _OTHER.sub("", self._line)
            inner.append(self.exception(is_inner=True))
            if not self.closed:
                message = f"one of several exceptions that does not end: {self._line}"
                raise ConsoleTextError(message)
            self.closed = False
            self._skip_empty()
        kind, _, text = head.partition(": ")
        return PrintedException(kind, text if ": " in head else None, tuple(frames), tuple(inner))

    @property
    def _line(self) -> str:
        return self.lines[self.at] if self.at < len(self.lines) else ""

    def _head(self) -> str:
        """Return type and message, which can have several lines."""
        taken = [self._line]
        self.at += 1
        while self.at < len(self.lines) and not self._ends_head():
            taken.append(self._line)
            self.at += 1
        head = "\n".join(taken).rstrip("\n")
        if head.endswith(_CLOSED):
            self.closed = True
            return head.removesuffix(_CLOSED)
        return head

    def _ends_head(self) -> bool:
        line = self._line
        return bool(_FRAME.fullmatch(line) or _PREVIOUS.fullmatch(line)) or line.startswith((_ARROW, _END_OF_INNER))

    def _frames(self) -> list[PrintedFrame]:
        frames: list[PrintedFrame] = []
        while not self.closed:
            if _PREVIOUS.fullmatch(self._line):
                if frames:
                    frames[-1] = replace(frames[-1], is_last_of_earlier=True)
            elif match := _FRAME.fullmatch(self._line):
                frames.append(PrintedFrame(match[1], match[2]))
                self.closed = bool(match[3])
            else:
                break
            self.at += 1
        return frames

    def _skip_empty(self) -> None:
        while self.at < len(self.lines) and not self._line:
            self.at += 1


def _overflowed(lines: list[str]) -> Iterator[PrintedFrame]:
    times, rules = 1, 0
    for line in lines:
        if match := _REPEAT.fullmatch(line):
            times, rules = int(match[1]), 0
        elif line == _RULE:
            rules += 1
            times = times if rules < 2 else 1
        elif match := _FRAME.fullmatch(line):
            yield PrintedFrame(match[1], match[2], times=times)
        elif line:
            return


def parse_stack(text: str) -> list[PrintedFrame]:
    """Return the frames of a stack as `Environment.StackTrace` gives it."""
    found = [match for line in text.splitlines() if (match := _FRAME.fullmatch(line))]
    return [PrintedFrame(match[1], match[2]) for match in found]


def as_json(exception: PrintedException) -> dict[str, Any]:
    """Return an exception for truth.json."""
    return {
        "type": exception.type,
        "message": exception.message,
        "frames": [frame_json(frame) for frame in exception.frames],
        "inner": [as_json(inner) for inner in exception.inner],
    }


def frame_json(frame: PrintedFrame) -> dict[str, Any]:
    """Return a frame for truth.json."""
    more = {"is_last_of_earlier": True} if frame.is_last_of_earlier else {}
    return {
        "method": frame.method,
        "parameters": frame.parameters,
        **more,
        **({"times": frame.times} if frame.times > 1 else {}),
    }
