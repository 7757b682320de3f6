# SPDX-License-Identifier: Apache-2.0
"""Symbols for the walkers: Breakpad's symbol files, made by dump_syms from the EXEs, DLLs and PDBs of live captures."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.minidump_peers.peer_tools import PeerTools

_WINE = {
    "x64": ("/usr/lib/x86_64-linux-gnu/wine/x86_64-windows",),
    "x86": ("/usr/lib/i386-linux-gnu/wine/i386-windows", "/usr/lib/x86_64-linux-gnu/wine/i386-windows"),
}
_OF_WINE = ("ntdll.dll", "kernel32.dll", "kernelbase.dll", "msvcrt.dll", "ucrtbase.dll")


@dataclass(frozen=True)
class WalkerFiles:
    """Where the walkers find Breakpad's symbol files, and images (directories, the nearest first)."""

    symbols: Path
    images: tuple[Path, ...] = ()


def files_of(folder: Path, tools: PeerTools, work: Path) -> WalkerFiles:
    """Return the files for the dump in `folder`: a live capture, called `wow64-clang-O2-read`; else none.

    Programs are in builds/x86/clang-O2 beside the captures, and Wine's own DLLs where Debian puts them.
    """
    machine, _, rest = folder.name.partition("-")
    arch = "x64" if machine == "x64" else "x86"
    build = folder.parent.parent / "builds" / arch / rest.rpartition("-")[0]
    if not build.is_dir():
        return WalkerFiles(work / "none")
    images = (build, *(path for path in map(Path, _WINE[arch]) if path.is_dir()))
    symbols = work / "symbols" / arch / build.name
    if not symbols.is_dir():
        files = symbols / "files"
        files.mkdir(parents=True)
        # The program looks for a PDB in the directory of the image.
        for path in (*build.glob("*.exe"), *build.glob("*.dll"), *build.glob("pdb/**/*.pdb")):
            if path.is_file():
                shutil.copy(path, files)
        system = [path for directory in images[1:2] for name in _OF_WINE if (path := directory / name).exists()]
        for path in (*files.glob("*.exe"), *files.glob("*.dll"), *system):
            command = [str(tools.dump_syms), str(path), "--store", str(symbols)]
            subprocess.run(command, check=False, capture_output=True)
    return WalkerFiles(symbols, images)
