# SPDX-License-Identifier: Apache-2.0
"""The wheel holds what the checkout holds, and plain `vol` finds the plugins once it is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.vol import CHECKOUT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(CHECKOUT)]
    subprocess.run(command, check=True)
    return next(out.glob("throwstack-*.whl"))


def test_every_file_of_the_engine_is_in_the_wheel(wheel: Path):
    held = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (CHECKOUT / "throwstack").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.relative_to(CHECKOUT).as_posix() for path in files} <= held


def test_the_plugins_go_where_volatility_looks_and_no_package_file_of_its_own_is_touched(wheel: Path):
    held = [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("volatility3/")]
    plugins = {path.name for path in (CHECKOUT / "plugins" / "windows").glob("*.py")}
    symbols = {path.name for path in (CHECKOUT / "symbols" / "windows").glob("*.json")}
    assert set(held) == {
        *(f"volatility3/plugins/windows/{name}" for name in plugins),
        *(f"volatility3/symbols/windows/{name}" for name in symbols),
    }


def short_names(text: str) -> set[str]:
    """Return the plugins that `vol -h` lists."""
    return set(re.findall(r"^    ([a-z][\w.]+\.[A-Z]\w+)", text, flags=re.MULTILINE))


def test_no_short_name_that_worked_before_becomes_ambiguous():
    command = [sys.executable, "-c", "import sys; from volatility3.cli import main; sys.argv[0] = 'vol'; main()"]
    environment = {"PYTHONPATH": str(CHECKOUT), "COLUMNS": "200"}
    plain = subprocess.run([*command, "-h"], capture_output=True, text=True, env=environment, check=True).stdout
    ours = [*command, "-p", str(CHECKOUT / "plugins"), "-h"]
    with_ours = subprocess.run(ours, capture_output=True, text=True, env=environment, check=True).stdout
    before, after = short_names(plain), short_names(with_ours)
    new = {path.stem for path in (CHECKOUT / "plugins" / "windows").glob("*.py")}
    assert len(before) > 50
    added = {name for name in after if name.split(".")[1] in new}
    assert {name.split(".")[1] for name in added} == new
    for name in before - added:
        short = name.rpartition(".")[0]
        assert not [other for other in added if short in other], f"{short} is ambiguous now"
    assert not any(f"windows.{stem}" in with_ours.partition("could not be loaded")[2] for stem in new)
