# SPDX-License-Identifier: Apache-2.0
"""What a forged dump must yield, as `truth.json`: the stuck threads with their frames, and the threads that wait.

Made from the labels and figures a stack was laid out with, never by unwinding. In the file, addresses are hex strings
and identifiers are numbers; a key that does not apply is null.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TruthFrame:
    """One frame, innermost first in its list.

    `child_sp` is what WinDbg prints first (x86: ChildEBP, the word below the return address; x64: rsp in the frame).
    `return_address` is 0 at the outermost frame. `args` are the three words after the return address on x86, None on
    x64. `symbol` is `MODULE!function+0x..` by the tables that come with the dump. `registers` are the nonvolatile
    ones in this frame.
    """

    ip: int
    child_sp: int
    return_address: int
    args: tuple[int, int, int] | None
    symbol: str
    registers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TruthThread:
    """A thread that is stuck on an unhandled exception.

    `registers` are those of the saved context. `frames` is the stack that threw, from the context outwards;
    `thread_stack` the blocked stack from the innermost frame (in the kernel, where the case has kernel frames).
    `blockers` are the functions it is blocked in, the explaining one first.
    """

    pid: int
    tid: int
    process: str
    arch: str
    code: int
    address: int
    record: int
    context: int
    registers: dict[str, int]
    thrown_at: str
    frames: tuple[TruthFrame, ...]
    thread_stack: tuple[TruthFrame, ...]
    blockers: tuple[str, ...] = ()
    exception_type: str | None = None
    """C++: the thrown type's decorated name (`.?AV_com_error@@`)."""
    message: str | None = None
    """C++: what the object says of itself (what(), or the HRESULT as 0x80004003)."""
    wait_ticks: int = 0


@dataclass(frozen=True)
class Truth:
    """All of it. `quiet` lists the (pid, tid) that must yield no row, `hanging` those whose row has no exception."""

    case: str
    arch: str
    stuck: tuple[TruthThread, ...] = ()
    quiet: tuple[tuple[int, int], ...] = ()
    stacks: dict[str, tuple[TruthFrame, ...]] = field(default_factory=dict)
    """Whole stacks of quiet threads by `pid:tid`, where the case has them."""
    hanging: tuple[tuple[int, int], ...] = ()

    def save(self, path: Path) -> None:
        """Write `truth.json`."""
        path.write_text(json.dumps(_shown(asdict(self)), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Truth:
        """Read `truth.json`."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            raw["case"],
            raw["arch"],
            tuple(_stuck(item) for item in raw["stuck"]),
            tuple((pid, tid) for pid, tid in raw["quiet"]),
            {key: _frames(frames) for key, frames in raw["stacks"].items()},
            tuple((pid, tid) for pid, tid in raw["hanging"]),
        )


_HEX = frozenset({"ip", "child_sp", "return_address", "args", "registers", "code", "address", "record", "context"})


def _shown(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _shown(item, key if key in _HEX else name) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item, key) for item in value]
    return hex(value) if isinstance(value, int) and key in _HEX else value


def _number(value: str) -> int:
    return int(value, 16)


def _registers(raw: dict[str, str]) -> dict[str, int]:
    return {name: _number(value) for name, value in raw.items()}


def _frames(raw: list[dict[str, Any]]) -> tuple[TruthFrame, ...]:
    return tuple(
        TruthFrame(
            _number(item["ip"]),
            _number(item["child_sp"]),
            _number(item["return_address"]),
            None if item["args"] is None else tuple(_number(word) for word in item["args"]),
            item["symbol"],
            _registers(item["registers"]),
        )
        for item in raw
    )


def _stuck(raw: dict[str, Any]) -> TruthThread:
    return TruthThread(
        **{
            **raw,
            **{name: _number(raw[name]) for name in ("code", "address", "record", "context")},
            "registers": _registers(raw["registers"]),
            "frames": _frames(raw["frames"]),
            "thread_stack": _frames(raw["thread_stack"]),
            "blockers": tuple(raw["blockers"]),
        }
    )
