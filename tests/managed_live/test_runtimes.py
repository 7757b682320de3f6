# SPDX-License-Identifier: Apache-2.0
"""Runtimes are fetched once, and one that cannot be had is said, not needed."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.managed_live.runtimes import RUNTIMES, Runtime, fetched, folder_of
from tests.support import packages
from tests.support.packages import Package

X86 = next(runtime for runtime in RUNTIMES if not runtime.is_64bit)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THROWSTACK_DOTNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "_PAUSE", 0)


def downloaded_by(client: Callable[[Path], list[str]]) -> Runtime:
    return replace(X86, package=Package("some-runtime", client))


def copies(archive: Path) -> Callable[[Path], list[str]]:
    return lambda out: [sys.executable, "-c", f"import shutil; shutil.copy({str(archive)!r}, {str(out)!r})"]


def test_what_is_wanted_of_a_package_is_kept(tmp_path: Path):
    (tmp_path / "dotnet.exe").write_bytes(b"MZ")
    archive = tmp_path / "runtime.tgz"
    with tarfile.open(archive, "w:gz") as package:
        package.add(tmp_path / "dotnet.exe", "package/dotnet.exe")
        package.add(tmp_path / "dotnet.exe", "elsewhere/other.exe")
        package.add(tmp_path / "dotnet.exe", "package/../../outside.exe")

    folder = folder_of(downloaded_by(copies(archive)))

    assert [path.relative_to(folder) for path in folder.rglob("*.exe")] == [Path("package/dotnet.exe")]
    archive.unlink()
    assert folder_of(downloaded_by(copies(archive))) == folder


def test_a_runtime_that_cannot_be_had_is_said():
    fails = downloaded_by(lambda _: [sys.executable, "-c", "raise SystemExit('no such package')"])

    assert fetched([fails]) == (
        {},
        [".NET 2.1.8 (2.1-x86) is left out: some-runtime: not fetched in 3 tries: no such package"],
    )


def test_a_client_that_is_not_installed_is_said():
    _, (line,) = fetched([downloaded_by(lambda _: ["no-such-client"])])

    assert line.endswith("no-such-client is not installed")
