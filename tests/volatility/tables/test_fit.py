# SPDX-License-Identifier: Apache-2.0
"""Tables made to fit a screen, printed by Volatility's own renderer."""

from __future__ import annotations

from volatility3.cli.text_renderer import PrettyTextRenderer
from volatility3.framework import renderers
from volatility3.framework.renderers import format_hints

from throwstack.volatility.tables.columns import ABSENT, Column, Prose, Row, headings, row, row_for_person
from throwstack.volatility.tables.fit import Tree, fit, wrap

COLUMNS: list[Column[Row]] = [
    Column("TID", int, lambda cells: cells[0]),
    Column("Args", str, lambda cells: cells[1]),
    Column("Call Site", str, lambda cells: cells[2]),
    Column("Notes", str, lambda cells: cells[3], is_prose=True),
]


def printed(rows: Tree, width: int, capsys, hidden: tuple[str, ...] = ()) -> list[str]:
    columns, rows = fit(COLUMNS, rows, width, hidden)
    renderer = PrettyTextRenderer()
    renderer.column_hide_list = list(hidden) or None
    renderer.render(renderers.TreeGrid(headings(columns), iter(rows)))
    return capsys.readouterr().out.splitlines()


def test_prose_goes_on_in_the_next_line_and_columns_without_a_value_are_left_out(capsys):
    rows: Tree = [
        (0, (8, ABSENT, Prose("app.exe: waits for a lock"), ABSENT)),
        (1, (8, ABSENT, "app!Run+0x12", Prose("a note that is much too long for its column"))),
    ]
    assert printed(rows, 56, capsys) == [
        "   | TID |            Call Site |               Notes",
        "*  |   8 | app.exe: waits for a |                   -",
        "   |     | lock                 |                    ",
        "** |   8 |         app!Run+0x12 | a note that is much",
        "   |     |                      | too long for its   ",
        "   |     |                      | column             ",
    ]


def test_a_call_site_is_never_broken(capsys):
    site = "app!" + "Deep::" * 20 + "Run"
    lines = printed([(0, (8, "1", site, Prose("a note of some length")))], 60, capsys)
    assert site in lines[1]
    assert [line.rpartition("| ")[2].strip() for line in lines[1:]] == ["a note of", "some length"]


def test_a_hidden_column_takes_no_room(capsys):
    note = "a note that fits if nothing else is there"
    (_, line) = printed([(0, (8, "0123456789" * 8, "app!Run", Prose(note)))], 70, capsys, ("args",))
    assert note in line


def test_without_rows_all_columns_are_named():
    columns, rows = fit(COLUMNS, [], 80)
    assert (columns, rows) == (COLUMNS, [])


def test_a_line_ends_where_a_word_of_a_call_site_ends():
    assert wrap("KERNEL32!UnhandledExceptionFilter, MSVCR71!abort", 25) == [
        "KERNEL32!",
        "UnhandledExceptionFilter,",
        "MSVCR71!abort",
    ]
    assert wrap(r"[d:\fts\src\idb.cpp @ 860]", 12) == ["[d:\\fts\\src\\", "idb.cpp @", "860]"]
    assert wrap("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]


def test_an_address_has_all_digits_for_a_person_and_none_is_added_for_a_program():
    columns: list[Column[int]] = [
        Column("Child-SP", format_hints.Hex, lambda value: value, lambda value: 8 if value < 2**32 else 16)
    ]
    (shown,) = row_for_person(columns, 0x45BA888)
    assert (f"0x{shown:x}", f"{shown}", shown) == ("0x045ba888", "73115784", 0x45BA888)
    (shown,) = row_for_person(columns, 0xE3B42FD0A0)
    assert f"0x{shown:x}" == "0x000000e3b42fd0a0"
    (plain,) = row(columns, 0x45BA888)
    assert f"0x{plain:x}" == "0x45ba888"
