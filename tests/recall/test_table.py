# SPDX-License-Identifier: Apache-2.0
"""The table of recall, and its place in a document that another command writes."""

from __future__ import annotations

from pathlib import Path

from tests.recall.losses import Kind
from tests.recall.measure import Outcome, Result
from tests.recall.table import TITLE, section
from tests.support.document_sections import replace_section, section_in

OUTCOMES = [
    Outcome("nested", "x64", Kind.TEB, "0x7000", 6100, 6108, Result.DOUBT, doubted=(4,)),
    Outcome("nested", "x64", Kind.ZERO, "0x9000", 6100, 6108, Result.SILENT, ("a row of thread 4",)),
]


def test_counts_are_by_architecture_and_kind():
    lines = section(OUTCOMES, 2).splitlines()
    assert "| x64 | page of its TEB | 1 | 0 | 1 | 0 | 0 | 0 | 0 | 1 |" in lines
    assert "| x64 | **all** | 2 | 0 | 1 | 0 | 0 | 1 | 1 | 1 |" in lines
    assert not any(line.startswith("| x86") for line in lines)


def test_the_section_takes_the_place_of_the_old_one(tmp_path: Path):
    document = tmp_path / "agreement.md"
    document.write_text("# Agreement\n\n## The set\n\n75 processes\n", encoding="utf-8")
    replace_section(document, TITLE, section(OUTCOMES, 3))
    once = document.read_text(encoding="utf-8")
    replace_section(document, TITLE, section(OUTCOMES, 2))
    twice = document.read_text(encoding="utf-8")
    assert twice == once.replace("a loss, 3 dumps", "a loss, 2 dumps") != once
    assert section_in(twice, TITLE) == section(OUTCOMES, 2)
    assert twice.startswith("# Agreement\n\n## The set\n\n75 processes\n\n## Recall under loss\n")
