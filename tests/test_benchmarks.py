# SPDX-License-Identifier: Apache-2.0
"""Every script of `benchmarks/` and `tools/` runs from a checkout, whatever the working directory: here, on little."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Forge
from tests.support.vol import CHECKOUT

FEW = {
    "beside_memprocfs.py": ["--case", "service-x64", "--rounds", "2"],
    "large_pdb.py": ["built", "--units", "1", "--classes", "3"],
    "managed_cost.py": ["--rounds", "1"],
    "naming.py": ["--written", "40", "--addresses", "20", "--rounds", "1"],
    "triage.py": ["--rounds", "1"],
    "x64_frames.py": ["--depth", "5", "--seconds", "0.01"],
}
SHOWS = {
    "beside_memprocfs.py": "throwstack / MemProcFS: x ",
    "large_pdb.py": "large.pdb: ",
    "managed_cost.py": "processes without a runtime, with / without managed code: x ",
    "naming.py": "60 frames of one module",
    "triage.py": "windows.unhandled / windows.threads: time x ",
    "x64_frames.py": " frames a second",
}


def run(directory: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the checkout as its head says, but in another directory and without PYTHONPATH."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, str(CHECKOUT / script), *options],
        cwd=directory, env={**variables, "PYTHONUTF8": "1"}, capture_output=True, encoding="utf-8", check=False,
        timeout=300,
    )  # fmt: skip


def test_every_benchmark_is_tried():
    assert {path.name for path in (CHECKOUT / "benchmarks").glob("*.py")} == set(FEW)


@pytest.mark.parametrize("script", FEW)
def test_a_benchmark_runs(script: str, forged: Forge, tmp_path: Path):
    if script == "naming.py":
        pytest.importorskip("purepdb", reason="purepdb is not installed (it needs Python 3.11)")
        pytest.importorskip("resource", reason="memory is measured in ways that Windows has not")
    if script == "large_pdb.py" and not (shutil.which("clang-19") and shutil.which("lld-link-19")):
        pytest.skip("clang 19 and lld 19 are not installed")
    if script == "triage.py" and not hasattr(os, "wait4"):
        pytest.skip("needs os.wait4")
    more = ["--dump", str(forged("quiet")[0])] if script == "triage.py" else []
    done = run(tmp_path, f"benchmarks/{script}", *FEW[script], *more)
    if "MemProcFS is not there" in done.stdout:
        pytest.skip("MemProcFS is not installed")
    assert done.returncode == 0, done.stderr
    assert SHOWS[script] in done.stdout


@pytest.mark.parametrize("script", sorted(f"tools/{path.name}" for path in (CHECKOUT / "tools").glob("*.py")))
def test_a_tool_says_what_it_takes(script: str, tmp_path: Path):
    done = run(tmp_path, script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
