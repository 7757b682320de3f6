# SPDX-License-Identifier: Apache-2.0
"""The comparison of values notices what is wrong, and counts what is not shown."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.live.noted_values import SIZE, compare_values, parse_values

STRINGS = {0x100: "f", 0x200: "count", 0x300: '"text"'}


def entry(kind: int, raw: bytes) -> bytes:
    return struct.pack("<5Q16s", 0x1FFC, 0x100, 0x200, kind, len(raw), raw)


def noted(kind: int, raw: bytes) -> dict[str, Any]:
    """A truth with the frame of `f`, which noted one value."""
    data = (struct.pack("<Q", 1) + entry(kind, raw)).ljust(SIZE, b"\0")
    frame = {"slot": "0x1ffc", "ip": "0x401010", "child_sp": "0x1ff8"}
    return {"stuck": [{"tid": 8, "frames": [frame]}], "values": parse_values(data, STRINGS.__getitem__)}


def reported(**variable: str) -> list[dict[str, Any]]:
    """The report on the crash with that frame."""
    frame = {"ip": "0x401010", "sp": "0x1ff8", "function": "f", "parameters": [{"name": "count", **variable}]}
    return [{"tid": 8, "throwing": {"frames": [frame]}}]


@pytest.mark.parametrize(
    ("kind", "raw", "variable"),
    [
        (0x101, b"\xff\xff\xff\xff", {"value": "0xffffffff", "text": "-1"}),
        (0x102, struct.pack("<d", 0.1), {"text": "0.1"}),
        (0x103, struct.pack("<Q", 0x300), {"text": '"text"'}),
    ],
)
def test_equal_values_are_equal(kind, raw, variable):
    result = compare_values(noted(kind, raw), reported(**variable))
    assert (result.noted, result.shown, result.parameters_shown, result.wrong) == (1, 1, 1, [])
    assert not list(result.problems("x64", "clang-O2"))


def test_a_wrong_value_is_a_problem_at_any_optimisation():
    result = compare_values(noted(0x101, b"\x05\0\0\0"), reported(value="0x6", text="6"))
    for compiler in ("clang-O0", "clang-O2"):
        (problem,) = result.problems("x86", compiler)
        assert "f: count was 5" in problem


@pytest.mark.parametrize(
    ("compiler", "problem"), [("clang-O0", "0 of 1 values shown"), ("clang-O2", "0 of 1 parameters shown")]
)
def test_too_few_values_are_a_problem(compiler, problem):
    result = compare_values(noted(0x101, b"\x05\0\0\0"), reported(reason="optimised out"))
    assert result.reasons == {"optimised out": 1}
    assert list(result.problems("x64", compiler)) == [problem]


def test_no_values_at_all_are_a_problem():
    assert list(compare_values({"stuck": [], "values": []}, []).problems("x64", "clang-O2")) == [
        "no value was compared"
    ]
