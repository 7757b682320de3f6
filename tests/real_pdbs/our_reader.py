# SPDX-License-Identifier: Apache-2.0
"""Our reader in the form of the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.real_pdbs.peer_frames import Chain, PeerFrame, bare_name
from throwstack.images.image import PdbIdentity
from throwstack.pdb.convert import convert
from throwstack.pdb.pdb_identity import read_pdb_identity
from throwstack.pdb.pdb_symbols import PdbTable


def open_table(pdb: Path) -> PdbTable:
    """Return the symbols of a PDB, whichever image it belongs to."""
    found = read_pdb_identity(pdb)
    return PdbTable(convert(pdb), PdbIdentity(pdb.name, found.guid, found.age))


def our_chains(pdb: Path, rvas: Sequence[int]) -> list[Chain]:
    """Return what our reader says about RVAs of the image; nothing for an address outside all functions."""
    table = open_table(pdb)
    return [chain_at(table, rva) for rva in rvas]


def chain_at(table: PdbTable, rva: int) -> Chain:
    """Return what our reader says about an RVA."""
    found = table.locate(rva)
    if not found or found[-1].is_inside is False:
        return ()
    return tuple(PeerFrame(bare_name(location.symbol), *_source(location.source)) for location in found)


def _source(text: str) -> tuple[str, int]:
    file, at, line = text.rpartition(" @ ")
    return (file, int(line)) if at else ("", 0)
