# SPDX-License-Identifier: Apache-2.0
"""Runs of frames that repeat, found in letters: each letter is a call site."""

from __future__ import annotations

import pytest

from throwstack.report.frame_report import FrameReport
from throwstack.report.text.recursion import folded
from throwstack.report.values import Hexadecimal


@pytest.mark.parametrize(
    ("stack", "shown"),
    [
        ("abcdef", "abcdef"),
        ("aaaa", "aaaa"),  # too few to be worth a line
        ("xaaaaaaaaaay", "xaa(8)y"),
        ("xabababababababy", "xabab(10)y"),
        ("abcabcabcabcabcxyz", "abcabc(9)xyz"),
        ("aaaaaaaaaabbbbbbbbbb", "aa(8)bb(8)"),
        ("aaaaaaaaaa", "aa(8)"),
        ("", ""),
    ],
)
def test_what_is_shown_and_what_is_counted(stack: str, shown: str):
    frames = [FrameReport(at, Hexadecimal(at), Hexadecimal(at), name, "cfi") for at, name in enumerate(stack)]
    parts = (
        "".join(frame.name for frame in seen) + (f"({len(counted)})" if counted else "")
        for seen, counted in folded(frames)
    )
    assert "".join(parts) == shown
