# SPDX-License-Identifier: Apache-2.0
"""Reads what a program noted of its threads that must not be reported: `noted_threads` of programs/wine_help.c."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.managed_live.console_text import PrintedFrame, parse_stack

EXPORT = "noted_threads"
MAGIC = b"managed-threads\0"
_HEADER = len(MAGIC) + 8
_NOTES, _NAME, _STACK = 12, 32, 2000
_NOTE = 4 + 2 * (_NAME + _STACK)


class NotesError(Exception):
    """The notes are not there."""


@dataclass(frozen=True)
class NotedThread:
    """A thread that waits. `frames` are its stack as the runtime printed it, before the wait: innermost first."""

    tid: int
    name: str
    frames: tuple[PrintedFrame, ...]


def read_notes(read: Callable[[int, int], bytes], address: int) -> list[NotedThread]:
    """Return the threads that the program noted, `read(address, size)` its memory. Raises `NotesError`."""
    data = read(address, _HEADER + _NOTES * _NOTE)
    if not data.startswith(MAGIC):
        message = f"no notes at {address:#x}"
        raise NotesError(message)
    count = struct.unpack_from("<I", data, len(MAGIC))[0]
    if count > _NOTES:
        message = f"{count} threads: the notes overflow"
        raise NotesError(message)
    return [_note(data, _HEADER + index * _NOTE) for index in range(count)]


def _note(data: bytes, at: int) -> NotedThread:
    tid = struct.unpack_from("<I", data, at)[0]
    name = _text(data[at + 4 : at + 4 + 2 * _NAME])
    return NotedThread(tid, name, tuple(parse_stack(_text(data[at + 4 + 2 * _NAME : at + _NOTE]))))


def _text(data: bytes) -> str:
    return data.decode("utf-16-le", "replace").partition("\0")[0]
