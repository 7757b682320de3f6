# SPDX-License-Identifier: Apache-2.0
"""The check of what rows say notices what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.titles import inline_problems, problems

FILTER = "crashed and waiting in the unhandled exception filter"


def row(exception: str | None, verdict: str = FILTER) -> dict[str, Any]:
    return {"Exception": exception, "Verdict": verdict}


def test_what_is_right_raises_no_objection():
    assert problems("x64-clang-O2-read", [row("ACCESS_VIOLATION reading 0x0000000000000010")]) == []
    assert problems("x86-clang-O2-shutdown", [row(None, "hangs in shutdown without an exception")]) == []
    assert problems("x64-clang-O2-both", [row("C++ int 5"), row("C++ store::StoreProblem")]) == []
    waits = "an exception is being dispatched, and the filter of rough!filter_that_waits does not return"
    assert problems("x64-clang-O2-seh", [row("ACCESS_VIOLATION reading 0x10", waits)]) == []


@pytest.mark.parametrize(
    ("case", "rows"),
    [
        ("x64-clang-O2-read", [row("ACCESS_VIOLATION writing 0x10")]),
        ("x64-clang-O2-read", [row("ACCESS_VIOLATION reading 0x10", "crashed inside shutdown")]),
        ("x64-clang-O2-both", [row("C++ int 5"), row("C++ int 5")]),
        ("x64-clang-O2-number", [row("C++ int 6")]),
        ("x86-clang-O2-shutdown", [row("ACCESS_VIOLATION reading 0x10", "hangs in shutdown without an exception")]),
        ("x64-clang-O2-read", []),
        ("x64-clang-O2-seh", [row("ACCESS_VIOLATION reading 0x10")]),
        ("x86-clang-O2-deadlock", [row("ACCESS_VIOLATION reading 0x10")]),
        ("x64-clang-O2-new", [row("C++ int 5")]),
    ],
)
def test_what_is_wrong_is_named(case: str, rows: list[dict[str, Any]]):
    assert problems(case, rows)


def test_an_inlined_function_is_looked_for_where_it_faults():
    inner = {"Frame": 0, "Trust": "inline", "Call Site": "crash!value_at"}
    outer = {"Frame": 1, "Trust": "context", "Call Site": "crash!leaf_read+0x4"}
    assert inline_problems("x64-clang-O2-leaf", [inner, outer]) == []
    assert inline_problems("x64-clang-O2-read", [outer]) == []
    assert inline_problems("x64-clang-O2-leaf", [{**outer, "Frame": 0}])
    assert inline_problems("x64-clang-O2-leaf", [])
