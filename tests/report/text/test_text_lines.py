# SPDX-License-Identifier: Apache-2.0
"""Lines are folded to 120 columns of a terminal, and coloured when it shows colours."""

from __future__ import annotations

import sys

import pytest
from rich.cells import cell_len

from throwstack.report.text.text_lines import WIDTH, Line, TextStyle, Tone, labelled, rendered

PLAIN, COLOURED = TextStyle(), TextStyle(colours=True)


def test_a_line_that_fits_stays_as_it_is():
    assert list(rendered(Line("  What       nothing"), PLAIN)) == ["  What       nothing"]
    assert list(rendered(Line(), PLAIN)) == [""]


@pytest.mark.parametrize("piece", ["word ", "x" * 300, "f:\\sp\\vctools\\", "\u6f22\u5b57", "e\u0301", "a,b;"])
def test_no_column_beyond_the_120th_is_used_and_nothing_is_lost(piece: str):
    text = piece * (1000 // len(piece))
    pieces = list(rendered(Line(text, indent=8), PLAIN))
    assert max(map(cell_len, pieces)) <= WIDTH
    assert all(one.startswith(" " * 8) for one in pieces[1:])
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")


def test_a_line_breaks_between_words_and_a_path_between_directories():
    assert next(rendered(Line("a " * 50 + "b" * 40), PLAIN)).endswith("a")
    assert next(rendered(Line("C:\\" + "directory\\" * 20), PLAIN)).endswith("\\")


@pytest.mark.parametrize("piece", ["x", "\u6f22", "e\u0301"])
def test_a_long_text_takes_time_in_proportion_to_its_length(piece: str):
    """A name from a dump has thousands of characters, and a report has thousands of such names."""
    calls = []

    def count(_frame: object, event: str, called: object) -> None:
        calls.append((event, called))

    sys.setprofile(count)
    try:
        list(rendered(Line(piece * 4000), PLAIN))
    finally:
        sys.setprofile(None)
    assert len(calls) < 10 * len(piece) * 4000


def test_what_follows_a_label_is_in_one_column():
    first, second = rendered(labelled("Where", "word " * 30), PLAIN)
    assert first.index("word") == second.index("word") == 13


def test_colours_are_on_request_only():
    line = labelled("What", "ACCESS_VIOLATION", Tone.HEADING)
    (coloured,) = rendered(line, COLOURED)
    assert "\x1b[" in coloured
    assert coloured.count("\x1b[0m") == 2, "each colour ends on its line"
    assert "\x1b" not in next(rendered(line, PLAIN))


def test_a_plain_line_has_no_colour():
    assert list(rendered(Line("00 045babb8"), COLOURED)) == ["00 045babb8"]


@pytest.mark.parametrize(("given", "used"), [(200, 200), (100, 100), (80, 80), (20, 80)])
def test_a_narrower_terminal_is_filled_and_none_is_narrower_than_a_stack(given: int, used: int):
    pieces = list(rendered(Line("word " * 100), TextStyle(width=given)))
    assert used - 5 < max(map(cell_len, pieces)) <= used


def test_a_headline_is_ruled_off_to_the_edge():
    (line,) = rendered(Line("== app.exe: crashed =", rule="="), TextStyle(width=80))
    assert line == f"== app.exe: crashed {'=' * 60}"
    first, last = rendered(Line(f"== {'name' * 30}: crashed =", indent=3, rule="="), TextStyle(width=120))
    assert (len(first), len(last)) == (120, 120)
