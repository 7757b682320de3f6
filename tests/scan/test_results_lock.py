# SPDX-License-Identifier: Apache-2.0
"""One scan at a time writes to a directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from throwstack.scan.part_store import StorageFailed
from throwstack.scan.results_lock import ResultsInUse, results_lock

_OTHER = """
import sys
from pathlib import Path
from throwstack.scan.results_lock import results_lock
with results_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_scan_is_refused_until_the_first_has_ended_or_was_killed(tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline().strip() == b"locked"
        with pytest.raises(ResultsInUse, match="out: another scan is writing its results there"), results_lock(out):
            pass
        other.kill()
        other.wait()
        with results_lock(out):
            pass


def test_other_directories_are_free(tmp_path):
    with results_lock(tmp_path / "a"), results_lock(tmp_path / "b"):
        assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "b"]


def test_a_directory_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="file/out: Not a directory"), results_lock(tmp_path / "file" / "out"):
        pass
