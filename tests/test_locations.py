# SPDX-License-Identifier: Apache-2.0
"""Plugins and ISF tables are found in an installed package and at the root of a checkout, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.vol import CHECKOUT
from throwstack import locations


def made(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("", encoding="utf-8")


def test_in_a_checkout_plugins_and_tables_are_at_its_root():
    assert locations.plugin_directory() == CHECKOUT / "plugins"
    assert locations.isf_directory() == CHECKOUT / "symbols"


def test_in_an_installation_plugins_and_tables_are_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made(tmp_path, "throwstack/plugins/windows/unhandled.py", "throwstack/isf/windows/throwstack-wow64.json")
    monkeypatch.setattr(locations, "_PACKAGE", tmp_path / "throwstack")
    assert locations.plugin_directory() == tmp_path / "throwstack" / "plugins"
    assert locations.isf_directory() == tmp_path / "throwstack" / "isf"


def test_another_projects_directory_beside_the_package_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made(tmp_path, "plugins/windows/theirs.py", "symbols/windows/theirs.json")
    monkeypatch.setattr(locations, "_PACKAGE", tmp_path / "throwstack")
    for directory in (locations.plugin_directory, locations.isf_directory):
        with pytest.raises(locations.NotInstalled, match="reinstall throwstack"):
            directory()
