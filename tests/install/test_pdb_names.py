# SPDX-License-Identifier: Apache-2.0
"""Frames are named from PDBs by what an installation brings, without a library that reads PDBs.

Runs in `make test-install`, which prepares what the environments are made of and names it in THROWSTACK_INSTALL.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.install.__main__ import download
from tests.install.kinds import BIN, Kind
from tests.support.vol import CHECKOUT

PARTS = os.environ.get("THROWSTACK_INSTALL", "")
READERS = ("symbolic", "purepdb", "pdbparse", "lief")
"""Libraries that read PDBs. The tests have some of them to compare with."""

pytestmark = pytest.mark.skipif(not PARTS, reason="make test-install runs these")


def test_frames_are_named_from_pdbs_without_a_library_for_them(tmp_path: Path):
    parts = Path(PARTS).resolve()
    installation = Kind(tmp_path, parts, ours=next((parts / "dist").glob("*.whl")))
    installation.prepare()
    installation.add()
    python = installation.home / BIN / "python"
    look = f"import importlib.util as u; print([name for name in {READERS!r} if u.find_spec(name)])"
    assert installation.run(python, "-c", look).strip() == "[]"

    dump, cache = parts / "dump", tmp_path / "cache"
    cache.mkdir()
    options = ("-q", "--offline", "--cache-path", cache, "-r", "json", "-s", dump / "isf", "-f", dump / "MEMORY.DMP")
    printed = installation.run(
        *installation.vol, *map(str, options), "windows.cxrstack", "--symbol-path", str(dump / "pdb")
    )
    named = {row["Call Site"].split("+")[0]: row["Source"] for row in json.loads(printed) if row.get("Source")}
    assert {"PrintProviderError", "_com_raise_error"} <= {name.rpartition("!")[2] for name in named}, named
    assert all(" @ " in source for source in named.values())


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_every_dependency_has_a_wheel_for_windows(python: str, tmp_path: Path):
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text.partition("\ndependencies = [")[2].partition("]")[0]
    needed = [line.strip().split('"')[1] for line in listed.splitlines() if line.strip()]
    assert len(needed) > 3
    options = ("--dest", str(tmp_path), "--no-deps", "--only-binary=:all:", "--platform", "win_amd64")
    assert download(*options, "--python-version", python, *needed)
