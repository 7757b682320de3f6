# SPDX-License-Identifier: Apache-2.0
"""Plain `vol` works before, with and after throwstack, in every kind of installation.

Runs in `make test-install`, which prepares what the environments are made of and names it in THROWSTACK_INSTALL.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.install import kinds
from tests.install.versions import newest, oldest

PARTS = os.environ.get("THROWSTACK_INSTALL", "")
OURS = {"windows.cxrstack.CxrStack", "windows.stackwalk.StackWalk", "windows.unhandled.Unhandled"}

pytestmark = pytest.mark.skipif(not PARTS, reason="make test-install runs these")


def versions() -> list[str]:
    """Return the versions of volatility3 that were prepared."""
    found = (path.name.split("-")[1] for path in Path(PARTS, "wheels").glob("volatility3-*.whl"))
    return sorted(found if PARTS else ())


def with_version(version: str) -> type[kinds.Kind]:
    """Return an ordinary environment with this volatility3."""
    return type("WithVersion", (kinds.Kind,), {"volatility": (f"volatility3=={version}",)})


@dataclass(frozen=True)
class Help:
    """What `vol -h` says: the plugins, and whatever it says of plugins that it could not load."""

    plugins: frozenset[str]
    failed: str

    def resolved(self, short: str) -> frozenset[str]:
        """Return the plugins that Volatility takes `short` for; it wants exactly one."""
        return frozenset(name for name in self.plugins if short in name)


def help_of(kind: kinds.Kind, command: Sequence[str]) -> Help:
    loaded, _, failed = kind.run(*command, "-h").partition("could not be loaded")
    return Help(frozenset(re.findall(r"^    ([a-z][\w.]+\.[A-Z]\w+)", loaded, flags=re.MULTILINE)), failed)


def rows(kind: kinds.Kind, command: Sequence[str], plugin: str) -> list[dict[str, object]]:
    dump, cache = kind.parts / "dump", kind.root / "cache"
    cache.mkdir(exist_ok=True)
    options = ("-q", "--offline", "--cache-path", cache, "-r", "json", "-s", dump / "isf", "-f", dump / "MEMORY.DMP")
    return list(json.loads(kind.run(*command, *map(str, options), plugin)))


def files_of_ours(root: Path) -> list[str]:
    """Return what is named after throwstack below `root`; packages that are kept for another installation are not."""
    kept = {"uv", "pip-cache", "home"}
    found = (path for path in root.rglob("*throwstack*") if path.relative_to(root).parts[0] not in kept)
    return sorted(str(path.relative_to(root)) for path in found)


def tree_of_volatility(root: Path) -> set[Path]:
    """Return the files of every package `volatility3` below `root`, but for compiled ones."""
    packages = {path.parents[1] for path in root.rglob("volatility3/framework/__init__.py")}
    return {path for package in packages for path in package.rglob("*") if "__pycache__" not in path.parts}


def test_the_oldest_and_the_newest_volatility_are_among_the_versions():
    assert {oldest(), newest()} <= set(versions())


@pytest.mark.parametrize(
    ("kind", "package"),
    [
        *(pytest.param(with_version(version), "*.whl", id=f"venv, volatility3 {version}") for version in versions()),
        pytest.param(kinds.Kind, "*.tar.gz", id="venv, from the sdist"),
        pytest.param(kinds.EditableVolatility, "*.whl", id="editable volatility3, by a finder"),
        pytest.param(kinds.EditableVolatilityCompat, "*.whl", id="editable volatility3, by a path"),
        pytest.param(kinds.EditableVolatilityStrict, "*.whl", id="editable volatility3, by links"),
        pytest.param(kinds.EditableThrowstack, "*.whl", id="editable throwstack"),
        pytest.param(kinds.User, "*.whl", id="--user, volatility3 of the system"),
        pytest.param(kinds.UserBoth, "*.whl", id="--user, both"),
        pytest.param(kinds.SystemSitePackages, "*.whl", id="--system-site-packages, throwstack vol"),
        pytest.param(kinds.Pipx, "*.whl", id="pipx inject"),
        pytest.param(kinds.UvTool, "*.whl", id="uv tool install --with"),
    ],
)
def test_vol_works_before_with_and_after(kind: type[kinds.Kind], package: str, tmp_path: Path):
    if issubclass(kind, kinds.System) and os.name == "nt":
        pytest.skip("the copy of the system's Python is made of links")
    parts = Path(PARTS).resolve()
    installation = kind(tmp_path, parts, ours=next((parts / "dist").glob(package)))

    installation.prepare()
    before, tree = help_of(installation, installation.vol), tree_of_volatility(tmp_path)
    assert len(before.plugins) > 50
    assert not before.plugins & OURS

    installation.add()
    for command in (installation.vol_with_plugins, [str(installation.throwstack), "vol"]):
        after = help_of(installation, command)
        assert after.plugins - before.plugins == OURS
        assert after.failed == before.failed
        for short in (name.rpartition(".")[0] for name in before.plugins):
            assert after.resolved(short) == before.resolved(short), short
    assert [row["PID"] for row in rows(installation, installation.vol_with_plugins, "windows.unhandled")] == [2564]
    assert 2564 in [row["PID"] for row in rows(installation, installation.vol, "windows.pslist")]
    assert tree_of_volatility(tmp_path) == tree

    installation.remove()
    assert help_of(installation, installation.vol) == before
    assert tree_of_volatility(tmp_path) == tree
    assert [path for path in files_of_ours(tmp_path) if not path.startswith("throwstack-")] == []
