# SPDX-License-Identifier: Apache-2.0
"""Compares the values of variables in a report with those that `values.exe` noted of itself (programs/values.c).

A noted value belongs to the frame whose return address is at the noted slot. What is shown must be equal; what is not
shown counts. Of what is compiled without optimisation nearly everything must be shown.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

NOTED_IN = "values.exe"
EXPORT = "ts_values"
_MAX_VALUES = 256
_ENTRY = struct.Struct("<5Q16s")
SIZE = 8 + _MAX_VALUES * _ENTRY.size
_INTEGER, _FLOAT, _TEXT, _OF_PARAMETER = 1, 2, 3, 0x100
_MAX_TEXT = 200
LEAST_SHOWN = 0.95
"""The share of all noted values that must be shown of code that is not optimised."""
LEAST_PARAMETERS = {("x64", "clang-O2"): 0.4, ("x86", "clang-O2-fp"): 0.7, ("wow64", "clang-O2-fp"): 0.7}
LEAST_OF_OTHERS = 0.5
"""The share of the noted parameters that must be shown of optimised code.

Without a frame pointer, clang does not say of the arguments of an x86 function that they stay where they are while
others are pushed.
"""


def parse_values(data: bytes, text: Callable[[int], str]) -> list[dict[str, Any]]:
    """Decode `ts_values`. `text(address)` reads a string of the program."""
    count = min(int.from_bytes(data[:8], "little"), _MAX_VALUES)
    found = []
    for index in range(count):
        slot, function, name, kind, size, raw = _ENTRY.unpack_from(data, 8 + index * _ENTRY.size)
        found.append(
            {
                "slot": f"{slot:#x}",
                "function": text(function),
                "name": text(name),
                "is_parameter": bool(kind & _OF_PARAMETER),
                "shown": _shown(kind & 0xFF, raw[:size], text),
            }
        )
    return found


def _shown(kind: int, raw: bytes, text: Callable[[int], str]) -> int | float | str:
    """Return what a report must show: the bytes of an integer as a number, a floating-point number, or the text."""
    if kind == _FLOAT:
        value: float = struct.unpack("<d" if len(raw) == 8 else "<f", raw)[0]
        return value
    number = int.from_bytes(raw, "little")
    return text(number) if kind == _TEXT else number


@dataclass
class ValueResult:
    """How the values of one fixture bear out what was noted."""

    noted: int = 0
    shown: int = 0
    parameters: int = 0
    parameters_shown: int = 0
    wrong: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)

    def problems(self, arch: str, compiler: str) -> Iterator[str]:
        """Yield what is not good enough."""
        yield from self.wrong
        if not self.noted:
            yield "no value was compared"
            return
        if compiler.endswith("O0"):
            if self.shown < LEAST_SHOWN * self.noted:
                yield f"{self.shown} of {self.noted} values shown"
        elif self.parameters_shown < LEAST_PARAMETERS.get((arch, compiler), LEAST_OF_OTHERS) * self.parameters:
            yield f"{self.parameters_shown} of {self.parameters} parameters shown"


def compare_values(truth: dict[str, Any], crashes: Sequence[dict[str, Any]]) -> ValueResult:
    """Compare the notes in `truth` with the variables in `crashes`, reports as JSON."""
    result = ValueResult()
    frames = {frame["return_slot"]: frame for frame in _truth_frames(truth)}
    shown = {crash["tid"]: crash["throwing"]["frames"] for crash in crashes if "throwing" in crash}
    for noted in truth["values"]:
        frame = frames.get(noted["slot"])
        if frame is None:
            continue
        result.noted += 1
        result.parameters += noted["is_parameter"]
        found = _variable(shown.get(frame["tid"], ()), frame, noted)
        if found is None or "text" not in found:
            reason = "no such variable" if found is None else found["reason"]
            result.reasons[reason] = result.reasons.get(reason, 0) + 1
            continue
        result.shown += 1
        result.parameters_shown += noted["is_parameter"]
        if not _is_equal(found, noted["shown"]):
            result.wrong.append(
                f"thread {frame['tid']} {noted['function']}: {noted['name']} was {noted['shown']!r}, shown {found}"
            )
    return result


def _truth_frames(truth: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for stuck in truth["stuck"]:
        for frame in stuck["frames"]:
            if frame["slot"] is not None and frame["ip"] is not None:
                yield {**frame, "tid": stuck["tid"], "return_slot": frame["slot"]}


def _variable(frames: Sequence[dict[str, Any]], frame: dict[str, Any], noted: dict[str, Any]) -> dict[str, Any] | None:
    """Return the variable of the function that noted it, at the frame; inlined functions have frames of their own."""
    for one in frames:
        if (one["ip"], one["sp"]) != (frame["ip"], frame["child_sp"]) or one.get("function") != noted["function"]:
            continue
        variables = [*one.get("parameters", ()), *one.get("locals", ())]
        return next((variable for variable in variables if variable["name"] == noted["name"]), None)
    return None


def _is_equal(found: dict[str, Any], noted: float | str) -> bool:
    if isinstance(noted, float):
        return struct.pack("<f", float(found["text"])) == struct.pack("<f", noted)
    if isinstance(noted, int):
        return int(found.get("value", "-1"), 16) == noted
    return bool(found["text"] == noted)
