# SPDX-License-Identifier: Apache-2.0
"""Runs llvm-pdbutil, a reader of PDBs that is not ours. Where it is not installed, tests say that they were skipped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.pdb_writer import Pdb

TOOL = next(filter(None, map(shutil.which, ("llvm-pdbutil-19", "llvm-pdbutil", "llvm-pdbutil-14"))), None)


def pdbutil(directory: Path, pdb: Pdb | Path, *options: str, block_size: int = 4096) -> str:
    """Return what `llvm-pdbutil dump` prints of a PDB, with its white space made single blanks.

    A PDB that is not a file yet is written into `directory`. The test fails if the tool reports an error.
    """
    if TOOL is None:
        pytest.skip("llvm-pdbutil is not installed")
    file = pdb
    if isinstance(pdb, Pdb):
        file = directory / "written.pdb"
        file.write_bytes(pdb.to_bytes(block_size))
    result = subprocess.run([TOOL, "dump", *options, str(file)], capture_output=True, text=True, check=True, timeout=60)
    assert not result.stderr, result.stderr
    return " ".join(result.stdout.split())
