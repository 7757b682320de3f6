# SPDX-License-Identifier: Apache-2.0
"""The tables' columns, held against docs/columns.md and the reports that their values come from."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import pytest
from volatility3.framework import renderers
from volatility3.framework.renderers import format_hints

from throwstack.names.name_style import NameStyle
from throwstack.report.crash_report import CrashReport
from throwstack.report.frame_report import FrameReport
from throwstack.report.thread_report import ThreadStackReport
from throwstack.report.values import Hexadecimal
from throwstack.volatility.tables.columns import Column, headings, row
from throwstack.volatility.tables.crash_table import CRASH_COLUMNS
from throwstack.volatility.tables.frame_table import throwing_columns
from throwstack.volatility.tables.thread_table import ThreadTable

DOCS = Path(__file__).parents[3] / "docs/columns.md"
FRAMES = throwing_columns(NameStyle.PLAIN, with_fpo=True, with_registers=True)
THREADS = ThreadTable(NameStyle.PLAIN, with_fpo=True, unique=True).columns
OF_FRAMES = {column.title for column in FRAMES} - {"Notes", "ETHREAD", "EPROCESS"}


def documented(plugin: str) -> dict[str, str]:
    """Return the columns of a plugin in docs/columns.md, in their order, with their fields."""
    section = DOCS.read_text("utf-8").partition(f"## {plugin}\n")[2].partition("\n## ")[0]
    found: dict[str, str] = {}
    for titles, field in re.findall(r"^\| (`[^|]*`) \| (?:`([\w.]+)`)? *\|", section, re.MULTILINE):
        found |= dict.fromkeys(re.findall("`([^`]+)`", titles), field)
    return found


def follow(kind: type, path: str) -> None:
    """Follow the names of a field, through tuples and optional values; raises KeyError where there is no such field."""
    for name in path.split("."):
        hint = typing.get_type_hints(kind)[name]
        classes = [
            hint,
            *typing.get_args(hint),
            *(inner for one in typing.get_args(hint) for inner in typing.get_args(one)),
        ]
        kind = next((one for one in classes if dataclasses.is_dataclass(one)), kind)


@pytest.mark.parametrize(
    ("plugin", "titles", "kind"),
    [
        ("windows.unhandled", [column.title for column in CRASH_COLUMNS], CrashReport),
        ("windows.cxrstack", [column.title for column in FRAMES], FrameReport),
        ("windows.stackwalk", [column.title for column in THREADS if column.title not in OF_FRAMES], ThreadStackReport),
    ],
)
def test_the_documentation_has_every_column_and_its_field(plugin: str, titles: list[str], kind: type):
    columns = documented(plugin)
    assert list(columns) == titles
    for path in filter(None, columns.values()):
        follow(kind, path)


@pytest.mark.parametrize("columns", [CRASH_COLUMNS, FRAMES, THREADS], ids=["crashes", "frames", "threads"])
def test_no_two_columns_share_a_title(columns: list[Column]):
    titles = [title for title, _ in headings(columns)]
    assert len(set(titles)) == len(titles)


def test_a_cell_of_nothing_is_shown_as_absent_and_zero_is_a_value():
    columns: list[Column[int | None]] = [
        Column("Address", format_hints.Hex, lambda value: None if value is None else Hexadecimal(value)),
        Column("Count", int, lambda value: value),
    ]
    assert all(isinstance(cell, renderers.NotAvailableValue) for cell in row(columns, None))
    address, count = row(columns, 0)
    assert (type(address), address, count) == (format_hints.Hex, 0, 0)
