# SPDX-License-Identifier: Apache-2.0
"""Fetches packages through the ordinary clients of their registries, and keeps what is wanted outside the checkout.

Nothing of others is in this repository: real PDBs and runtimes come this way, when a test that needs them runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TRIES = 3
_PAUSE = 5.0
_TIME_LIMIT = 180


class NotFetched(Exception):
    """A package cannot be had here; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package of a registry. `download` gives the command that puts its one file into a directory."""

    name: str
    download: Callable[[Path], list[str]]


def npm(spec: str) -> Callable[[Path], list[str]]:
    """Return the command of npm."""
    return lambda out: [shutil.which("npm") or "npm", "pack", "--silent", "--pack-destination", str(out), spec]


def pip(spec: str) -> Callable[[Path], list[str]]:
    """Return the command of pip, for the wheel of x64 Windows."""
    return lambda out: [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary=:all:", "--platform", "win_amd64", "--python-version", "3.11", "--dest", str(out), spec),
    ]


def cache_folder(name: str, variable: str) -> Path:
    """Return the directory for things of one kind: what an environment variable says, or one in the user's cache."""
    given = os.environ.get(variable)
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "throwstack-tests" / name


def fetch(package: Package, kept: Path, unpack: Callable[[Path, Path], None]) -> None:
    """Download a package, with some tries, and have `unpack(archive, directory)` fill `kept`. Raises `NotFetched`."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        archive = _downloaded(package, Path(scratch))
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        unpack(archive, unpacked)
        try:
            unpacked.rename(kept)
        except OSError:  # another run was faster
            if not kept.is_dir():
                raise


def members(archive: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the name of each file in a wheel or an npm package, and what reads it."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if not name.endswith("/"):
                    yield name, lambda name=name: wheel.read(name)  # type: ignore[misc]
        return
    with tarfile.open(archive) as package:
        for member in package:
            if member.isfile():
                yield member.name, lambda member=member: package.extractfile(member).read()  # type: ignore[misc]


def _downloaded(package: Package, scratch: Path) -> Path:
    """Return the package's file. Raises `NotFetched`."""
    reason = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE)
        out = scratch / f"try{attempt}"
        out.mkdir()
        try:
            done = subprocess.run(
                package.download(out),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIME_LIMIT,
                check=False,
            )
        except FileNotFoundError as error:
            message = f"{package.name}: {error.filename} is not installed"
            raise NotFetched(message) from None
        except subprocess.TimeoutExpired:
            reason = f"not done after {_TIME_LIMIT} s"
            continue
        files = list(out.iterdir())
        if done.returncode == 0 and len(files) == 1:
            return files[0]
        reason = (done.stderr.strip().splitlines() or ["its client said nothing"])[-1]
    message = f"{package.name}: not fetched in {_TRIES} tries: {reason}"
    raise NotFetched(message)
