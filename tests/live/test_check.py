# SPDX-License-Identifier: Apache-2.0
"""What the check of the fixtures makes of plugins that fail, and of fixtures that are no longer in the set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

from tests.live.check import failure_of, fixture_folders
from tests.support.vol import CHECKOUT


def test_a_plugin_that_exits_with_an_error_and_no_output_has_failed(tmp_path: Path):
    log = tmp_path / "plugins.log"
    assert failure_of(CompletedProcess([], 0, "", "a warning\n"), log) == ""
    assert "exit code 1" in failure_of(CompletedProcess([], 1, "", ""), log)


def test_a_failure_is_said_in_one_line_and_kept_in_full(tmp_path: Path):
    log = tmp_path / "plugins.log"
    said = failure_of(CompletedProcess([], 1, "", "Traceback:\n  line 4\nValueError: odd\n\n"), log)
    assert said.startswith("ValueError: odd")
    assert "\n" not in said
    assert "line 4" in log.read_text(encoding="utf-8")


def test_what_volatility_complains_of_is_passed_on(tmp_path: Path):
    (tmp_path / "MEMORY.DMP").write_bytes(b"no dump at all" * 1000)
    (tmp_path / "truth.json").write_text('{"walked": []}', encoding="utf-8")
    command = [sys.executable, "-m", "tests.live.plugin_runs", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    said = failure_of(done, tmp_path / "plugins.log")
    assert said.startswith("RuntimeError: windows.unhandled: ")
    assert "requirement" in said


def test_fixtures_of_an_earlier_set_are_left_out(tmp_path: Path):
    for name in ("x64-clang-O2-read", "x64-clang-O1-read"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "truth.json").touch()
    assert [folder.name for folder in fixture_folders(tmp_path)] == ["x64-clang-O2-read"]
