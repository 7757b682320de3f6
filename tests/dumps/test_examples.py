# SPDX-License-Identifier: Apache-2.0
"""The scripts in `examples/`, run as their heads say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Forge
from tests.support.vol import CHECKOUT

EXAMPLES = CHECKOUT / "examples"


def run(script: str, *arguments: object, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("_NT_")}
    environment |= {"PYTHONPATH": str(CHECKOUT), "XDG_CACHE_HOME": str(cache), "LOCALAPPDATA": str(cache)}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={**environment, "PYTHONUTF8": "1"},
        cwd=cache,
    )


@pytest.fixture
def ftp(forged: Forge) -> tuple[Path, Path]:
    out, _ = forged("ftp-2003")
    return out / "MEMORY.DMP", out / "isf"


def test_print_crashes(ftp: tuple[Path, Path], tmp_path: Path):
    done = run("print_crashes.py", *ftp, cache=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "iftpsvc.exe: C++ _com_error, HRESULT 0x80004003 E_POINTER (Invalid pointer)"
    assert lines[1] == "    KERNEL32!RaiseException+0x53"
    assert lines[-1] == "    KERNEL32!BaseThreadStart+0x34"


def test_print_crashes_takes_ten_lines_of_code():
    text = (EXAMPLES / "print_crashes.py").read_text("utf-8").partition('"""\n\n')[2]
    assert len([line for line in text.splitlines() if line]) <= 10


def test_report_as_json(ftp: tuple[Path, Path], tmp_path: Path):
    done = run("report_as_json.py", *ftp, cache=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["crashes"][0]["exceptions"][0]["hresult"] == "0x80004003"


def test_report_as_json_says_what_is_wrong_with_a_file(ftp: tuple[Path, Path], tmp_path: Path):
    done = run("report_as_json.py", EXAMPLES / "report_as_json.py", ftp[1], cache=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("text file: this is text, not a memory image\n")


def test_group_by_signature(ftp: tuple[Path, Path], tmp_path: Path):
    done = run("group_by_signature.py", ftp[1], ftp[0], ftp[0], cache=tmp_path)
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    assert line.startswith("    2 ftpsrvdata_pg!PrintProviderError (")


def test_threads_that_wait(ftp: tuple[Path, Path], tmp_path: Path):
    done = run("threads_that_wait.py", 2564, *ftp, cache=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2792 Waiting UserRequest 0.3125 8948fcb0 NotificationEvent" in done.stdout


def test_every_example_is_run_here():
    text = Path(__file__).read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'run("{path.name}"' not in text] == []
