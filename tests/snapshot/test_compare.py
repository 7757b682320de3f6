# SPDX-License-Identifier: Apache-2.0
"""What the comparison of two snapshots says of small ones, and that it stays short on large ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.snapshot.compare import MOST_LINES_TO_ALIGN, differences


@pytest.fixture
def snapshots(tmp_path: Path) -> tuple[Path, Path]:
    """Two snapshots of one dump and one command, equal so far."""
    before, after = tmp_path / "before", tmp_path / "after"
    for root in (before, after):
        (root / "quiet").mkdir(parents=True)
        (root / "quiet" / "unhandled.txt").write_text("PID\tTID\n1\t2\n3\t4\n", "utf-8")
    return before, after


def test_equal_snapshots_have_no_differences(snapshots: tuple[Path, Path]):
    assert list(differences(*snapshots)) == []


def test_a_changed_line_is_shown_with_its_neighbours(snapshots: tuple[Path, Path]):
    (snapshots[1] / "quiet" / "unhandled.txt").write_text("PID\tTID\n1\t2\n3\t5\n", "utf-8")
    assert list(differences(*snapshots)) == [
        "quiet/unhandled.txt: 2 lines differ",
        "@@ -2,2 +2,2 @@",
        " 1\t2",
        "-3\t4",
        "+3\t5",
    ]


def test_a_file_and_a_dump_of_one_side_are_named(snapshots: tuple[Path, Path]):
    before, after = snapshots
    (before / "fleet").mkdir()
    (before / "fleet" / "unhandled.txt").touch()
    (after / "quiet" / "stackwalk.txt").touch()
    assert list(differences(before, after)) == ["fleet: only before", "quiet/stackwalk.txt: only after"]


def test_long_files_show_what_is_gone_and_what_is_new(snapshots: tuple[Path, Path]):
    lines = [f"{number}\n" for number in range(MOST_LINES_TO_ALIGN)]
    (snapshots[0] / "quiet" / "unhandled.txt").write_text("".join(lines), "utf-8")
    (snapshots[1] / "quiet" / "unhandled.txt").write_text("".join([*lines[1:], "new\n"]), "utf-8")
    assert list(differences(*snapshots)) == ["quiet/unhandled.txt: 2 lines differ", "-0", "+new"]


def test_the_lines_of_a_file_are_limited(snapshots: tuple[Path, Path]):
    (snapshots[1] / "quiet" / "unhandled.txt").write_text("".join(f"{n}\n" for n in range(100)), "utf-8")
    shown = list(differences(*snapshots, lines=10))
    assert len(shown) == 12
    assert shown[-1].startswith("... and ")
