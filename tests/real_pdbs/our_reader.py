# SPDX-License-Identifier: Apache-2.0
"""Our reader in the form of the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.real_pdbs.peer_frames import Chain, PeerFrame, bare_name
from throwstack.pdb.pdb_file import PdbFile
from throwstack.pdb.pdb_table import PdbTable


class Refused(Exception):
    """Our reader said that a PDB is damaged."""


def open_table(pdb: Path) -> PdbTable:
    """Return the symbols of a PDB, whichever image it belongs to. Raises `Refused` and `NotAPdb`."""
    return PdbTable(PdbFile(pdb), _refuse)


def our_chains(pdb: Path, rvas: Sequence[int]) -> list[Chain]:
    """Return what our reader says about RVAs of the image. Raises `Refused` and `NotAPdb`."""
    table = open_table(pdb)
    try:
        return [chain_at(table, rva) for rva in rvas]
    finally:
        table.pdb.close()


def chain_at(table: PdbTable, rva: int) -> Chain:
    """Return what our reader says about an RVA; nothing for an address outside all functions."""
    found = table.locate(rva)
    if not found or found[-1].is_inside is False:
        return ()
    return tuple(PeerFrame(bare_name(location.symbol), *_source(location.source)) for location in found)


def _source(text: str) -> tuple[str, int]:
    file, at, line = text.rpartition(" @ ")
    return (file, int(line)) if at else ("", 0)


def _refuse(message: str) -> None:
    raise Refused(message)
