# SPDX-License-Identifier: Apache-2.0
"""A dump that is cut off says so first, and names the command that says more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Forge
from tests.support.vol import vol


def cut(out: Path, directory: Path, size: float) -> Path:
    """Write the first bytes of a dump, a share of it or a number, into a file whose name needs quotes."""
    data = (out / "MEMORY.DMP").read_bytes()
    dump = directory / "cut off.dmp"
    dump.write_bytes(data[: int(len(data) * size) if size < 1 else int(size)])
    return dump


@pytest.mark.parametrize(
    ("size", "missing"),
    [(0.6, "% of its memory is missing at the end"), (0x3000, "99"), (0x1800, "it ends within its header")],
)
def test_it_is_said_before_anything_else(forged: Forge, tmp_path: Path, size: float, missing: str):
    out, _ = forged("service-x64")
    done = vol(out, "windows.unhandled", dump=cut(out, tmp_path, size), is_one_stream=True)
    banner, first, *rest = (line for line in done.out.splitlines() if line)
    assert banner.startswith("Volatility 3")
    assert missing in first
    assert f"throwstack doctor '{tmp_path / 'cut off.dmp'}' says what can be done" in first
    assert not any("cut off:" in line for line in rest), "once"


def test_it_is_said_with_a_saved_configuration_too(forged: Forge, tmp_path: Path):
    """Then Volatility does not look for the layers of the dump, which it was given."""
    out, _ = forged("service-x64")
    config = tmp_path / "config.json"
    vol(out, "windows.pslist", more=("--save-config", str(config)))
    saved = json.loads(config.read_text("utf-8"))
    dump = cut(out, tmp_path, 0.9)
    text = json.dumps(saved).replace((out / "MEMORY.DMP").resolve().as_uri(), dump.resolve().as_uri())
    config.write_text(text, "utf-8")
    done = vol(out, "windows.unhandled", dump=dump, more=("-c", str(config)))
    assert "this dump is cut off" in done.err


def test_a_whole_dump_says_nothing_of_it(forged: Forge):
    out, _ = forged("service-x64")
    assert "cut off" not in vol(out, "windows.unhandled").err
