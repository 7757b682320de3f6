# SPDX-License-Identifier: Apache-2.0
r"""The crash buffer of NativeAOT: what the runtime wrote of itself before it ended the process.

An application that NativeAOT compiled has no MethodTables with metadata. Before it fails fast (0xC0000409), its runtime
writes JSON into a buffer of its own (dotnet/runtime, CrashInfo.cs, from .NET 8 on). The record has four parameters:
0x48 (FAST_FAIL_EXCEPTION_DOTNET_AOT), the HRESULT, the buffer's address, the size of the JSON in bytes. All values are
strings, numbers too:

    {"version":"1.0.0","runtime_base":"0x7FF6…","runtime_type":"4","runtime_version":"8.0.1","reason":"1",
     "thread":"0x1A4","message":"","exception":{"address":"0x…","hr":"0x80131509","message":"no stock",
     "type":"System.InvalidOperationException","stack":[{"ip":"0x…","module":"0x…","offset":"0x2F","name":"…"}],
     "inner":[…]}}

What does not fit into the buffer was left out by the runtime: frames, names, inner exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from throwstack.core.memory import Memory
from throwstack.core.text import escape
from throwstack.managed.bounded_json import parse_json, whole_number
from throwstack.managed.managed_exception import ManagedException, ManagedFrame, ManagedMethod
from throwstack.managed.runtime_memory import StructureError

FAST_FAIL_DOTNET_AOT = 0x48
_MAX_BUFFER = 1 << 18
"""The most bytes of JSON that are read; the runtime's buffer has a few kilobytes."""
_PARAMETERS = 4
_MAX_DEPTH, _MAX_EXCEPTIONS, _MAX_FRAMES, _MAX_FRAMES_OF_ALL = 16, 64, 500, 2000
_MAX_NAME, _MAX_MESSAGE = 1024, 1 << 13
_NO_NAME = ManagedMethod("", reason="the crash buffer has no name of this frame")


class CrashReason(Enum):
    """Why the runtime ended the process, by the number that it writes."""

    UNKNOWN = 0
    UNHANDLED_EXCEPTION = 1
    ENVIRONMENT_FAIL_FAST = 2
    INTERNAL_FAIL_FAST = 3


@dataclass(frozen=True, slots=True)
class CrashBuffer:
    """What a NativeAOT runtime wrote. `thread` is the id of the crashed thread, None if it is not in the buffer.

    `message` is that of the fail-fast, "" if there is none. `exception` is None if the process failed fast without one.
    All strings are escaped and of limited length.
    """

    runtime_version: str
    reason: CrashReason
    thread: int | None
    message: str
    exception: ManagedException | None


def has_crash_buffer(parameters: Sequence[int]) -> bool:
    """Say whether the parameters of a record with the code 0xC0000409 are those of a NativeAOT runtime."""
    return len(parameters) >= _PARAMETERS and parameters[0] == FAST_FAIL_DOTNET_AOT and parameters[2] != 0


def read_crash_buffer(memory: Memory, parameters: Sequence[int]) -> CrashBuffer:
    """Read the crash buffer to which the parameters of a record lead, of which `has_crash_buffer` is true.

    Raises:
        MemoryUnreadable: a page of the buffer is absent.
        StructureError: the buffer does not hold what the runtime writes.
    """
    _, _, address, size = parameters[:_PARAMETERS]
    if not 0 < size <= _MAX_BUFFER:
        message = f"the crash buffer claims {size:,} bytes"
        raise StructureError(message)
    text = memory.read(address, size).rstrip(b"\0")
    said = _members(parse_json(text, "the crash buffer"))
    if not said:
        message = "the crash buffer does not hold what the runtime writes"
        raise StructureError(message)
    number = _number(said.get("reason"))
    reason = CrashReason(number) if number in {item.value for item in CrashReason} else CrashReason.UNKNOWN
    thrown = _members(said.get("exception"))
    return CrashBuffer(
        _text(said.get("runtime_version"), _MAX_NAME),
        reason,
        _number(said.get("thread")),
        _text(said.get("message"), _MAX_MESSAGE),
        _Reader().exception(thrown, 0) if thrown else None,
    )


class _Reader:
    """Reads the exceptions of one buffer, and counts them and their frames."""

    def __init__(self) -> None:
        self._left = _MAX_EXCEPTIONS
        self._frames_left = _MAX_FRAMES_OF_ALL

    def exception(self, said: dict[str, object], depth: int) -> ManagedException:
        self._left -= 1
        reasons, inner = [], []
        stack = said.get("stack")
        frames = stack if isinstance(stack, list) else []
        most = min(_MAX_FRAMES, self._frames_left)
        self._frames_left -= min(len(frames), most)
        if len(frames) > most:
            reasons.append(f"the first {most} of {len(frames):,} frames are shown")
        given = said.get("inner")
        for item in given if isinstance(given, list) else []:
            if depth >= _MAX_DEPTH or self._left <= 0:
                reasons.append("further inner exceptions are left out")
                break
            members = _members(item)
            if members:
                inner.append(self.exception(members, depth + 1))
        message = said.get("message")
        return ManagedException(
            _text(said.get("type"), _MAX_NAME),
            (),
            _text(message, _MAX_MESSAGE) if isinstance(message, str) else None,
            _number(said.get("hr")),
            _number(said.get("address")) or 0,
            0,
            tuple(inner),
            tuple(_frame(_members(frame)) for frame in frames[:most]),
            None,
            tuple(reasons),
        )


def _frame(said: dict[str, object]) -> ManagedFrame:
    name = _text(said.get("name"), _MAX_NAME)
    return ManagedFrame(_number(said.get("ip")) or 0, 0, 0, ManagedMethod(name) if name else _NO_NAME)


def _members(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object, limit: int) -> str:
    return escape(value, limit) if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    """Return the number that a string is; None if it is none, or negative."""
    try:
        number = whole_number(value) if isinstance(value, str) else -1
    except ValueError:
        return None
    return number if number >= 0 else None
