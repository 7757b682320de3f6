# SPDX-License-Identifier: Apache-2.0
"""Every line of output in docs/case-study.md and of the report in the README is what the commands print."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Forge
from throwstack.cli.main import main

ROOT = Path(__file__).parents[2]


def shown(document: str) -> list[str]:
    """Return the lines of output in a document: those that begin with four blanks."""
    text = (ROOT / document).read_text("utf-8")
    return [line[4:] for line in text.splitlines() if line.startswith("    ") and line.strip()]


def printed(capsys: pytest.CaptureFixture[str], command: str, out: Path, *more: str) -> list[str]:
    main([command, "-s", str(out / "isf"), str(out / "MEMORY.DMP"), "--offline", *more])
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_the_case_study_shows_what_the_commands_print(forged: Forge, capsys: pytest.CaptureFixture[str]):
    out, _ = forged("ftp-2003")
    report = printed(capsys, "report", out, "--symbol-path", str(out / "pdb"))
    doctor = [line.strip() for line in printed(capsys, "doctor", out)]
    lines = shown("docs/case-study.md")
    assert [line for line in lines if line not in report and line not in doctor] == []
    assert len(lines) > 25


def test_the_readme_begins_with_what_the_report_prints(forged: Forge, capsys: pytest.CaptureFixture[str]):
    out, _ = forged("ftp-2003")
    report = printed(capsys, "report", out, "--symbol-path", str(out / "pdb"))
    begin = (ROOT / "README.md").read_text("utf-8").partition("It answers")[2].partition("\n[From the complaint")[0]
    lines = [line[4:] for line in begin.splitlines() if line.startswith("    ")]
    assert lines == [line for line in report if line][: len(lines)]
    assert len(lines) > 20
