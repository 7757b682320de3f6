# SPDX-License-Identifier: Apache-2.0
"""The check of what rows say notices what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.titles import problems

FILTER = "crashed and waiting in the unhandled exception filter"


def row(exception: str | None, verdict: str = FILTER) -> dict[str, Any]:
    return {"Exception": exception, "Verdict": verdict}


def test_what_is_right_raises_no_objection():
    assert problems("x64-clang-O2-read", [row("ACCESS_VIOLATION reading 0x0000000000000010")]) == []
    assert problems("x86-clang-O2-shutdown", [row(None, "hangs in shutdown without an exception")]) == []
    assert problems("x64-clang-O2-both", [row("C++ int 5"), row("C++ store::StoreProblem")]) == []


@pytest.mark.parametrize(
    ("case", "rows"),
    [
        ("x64-clang-O2-read", [row("ACCESS_VIOLATION writing 0x10")]),
        ("x64-clang-O2-read", [row("ACCESS_VIOLATION reading 0x10", "crashed inside shutdown")]),
        ("x64-clang-O2-both", [row("C++ int 5"), row("C++ int 5")]),
        ("x64-clang-O2-number", [row("C++ int 6")]),
        ("x86-clang-O2-shutdown", [row("ACCESS_VIOLATION reading 0x10", "hangs in shutdown without an exception")]),
        ("x64-clang-O2-read", []),
        ("x64-clang-O2-new", [row("C++ int 5")]),
    ],
)
def test_what_is_wrong_is_named(case: str, rows: list[dict[str, Any]]):
    assert problems(case, rows)
