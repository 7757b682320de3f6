# SPDX-License-Identifier: Apache-2.0
"""Opens a PDB that a test describes."""

from __future__ import annotations

from pathlib import Path

from tests.support.pdb_writer import Pdb
from throwstack.pdb.pdb_file import PdbFile

GUID = "0123456789ABCDEF00112233445566AA"


def opened(tmp_path: Path, pdb: Pdb, block_size: int = 4096) -> PdbFile:
    """Write `pdb` and open it."""
    path = tmp_path / "app.pdb"
    path.write_bytes(pdb.to_bytes(block_size))
    return PdbFile(path)
