# SPDX-License-Identifier: Apache-2.0
"""Options of the plugins."""

from __future__ import annotations

import pytest

from tests.conftest import Forge
from tests.support.vol import vol
from throwstack.volatility.options import wow64_requirement


def test_wow64_takes_an_older_word_that_its_help_does_not_show():
    choices = wow64_requirement("", default="both").choices
    assert list(choices) == ["x86", "native", "both"]
    assert [word in choices for word in ("x86", "32", "64")] == [True, True, False]


@pytest.mark.parametrize(("word", "rows"), [("32", 1), ("both", 1), ("native", 0)])
def test_unhandled_shows_threads_that_are_stuck_on_the_sides_asked_for(forged: Forge, word: str, rows: int):
    """The one stuck thread of this machine threw in 32-bit code."""
    out, _ = forged("wow64-service")
    assert len(vol(out, "windows.unhandled", "--wow64", word).rows) == rows
