# SPDX-License-Identifier: Apache-2.0
"""Compiles a small program with clang and lld, to have a PDB that is not from the tests' own writer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CLANG, LINK = shutil.which("clang-19"), shutil.which("lld-link-19")


def compiled_pdb(directory: Path, source: str, target: str, *options: str, link: tuple[str, ...] = ()) -> Path:
    """Compile the C++ text `source` for `target` (`x86_64-pc-windows-msvc`) and return the PDB of the program.

    The program starts at `start` and uses no library. Where the tools are not installed, the test says that it was
    skipped.
    """
    if CLANG is None or LINK is None:
        pytest.skip("clang-19 and lld-link-19 are not installed")
    (directory / "program.cpp").write_text(source, "utf-8")
    compile_ = [CLANG, f"--target={target}", *options, "-c", "program.cpp", "-o", "program.obj"]
    subprocess.run(compile_, cwd=directory, check=True, timeout=60)
    plain = ("/nologo", "/debug", "/entry:start", "/subsystem:console", "/nodefaultlib", "program.obj", "/out:a.exe")
    subprocess.run([LINK, *plain, *link], cwd=directory, check=True, timeout=60)
    return directory / "a.pdb"
