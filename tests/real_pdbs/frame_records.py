# SPDX-License-Identifier: Apache-2.0
"""Compares the frame data that our reader finds with what llvm-pdbutil prints of the same PDB."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.real_pdbs.llvm_peer import frame_data
from tests.real_pdbs.our_reader import open_table
from tests.real_pdbs.purepdb_facts import PdbFacts
from throwstack.names.frame_records import FrameData
from throwstack.pdb.pdb_table import PdbTable


def compare_frame_data(pdb: Path) -> tuple[int, list[str]]:
    """Return how many records were compared, and the differences as text.

    At the start of each record our reader has to find the shortest record that starts there: that one is the innermost.
    Of FPO records only what LLVM reads rightly is compared: it takes bit 10 for "uses ebp", which belongs to the number
    of saved registers, and the prologue has eight bits and not four.
    """
    with TemporaryDirectory() as scratch:
        as_linked = Path(scratch) / "linked.pdb"  # addresses as they were before the image was rearranged, if it was
        as_linked.write_bytes(PdbFacts(pdb).as_linked())
        new, old = frame_data(as_linked)
        table = open_table(as_linked)
        try:
            return _compare(table, new, old)
        finally:
            table.pdb.close()


def _compare(table: PdbTable, new: list[tuple], old: list[tuple]) -> tuple[int, list[str]]:
    starts = defaultdict(list)
    for row in new:
        starts[row[0]].append(row)
    differences = []
    for rva, rows in starts.items():
        found = table.frame_data(rva)
        shortest = min(rows, key=lambda row: row[1])
        same_size = [row for row in rows if row[1] == shortest[1]]
        if found is None or _new(found) not in [_wanted(row) for row in same_size]:
            differences.append(f"{rva:#x}: {found} instead of {shortest}")
    for row in old:
        found = table.frame_description(row[0])
        if row[8] in ("FPO", "Non-FPO") and (found is None or _old(found) != (*row[:2], 4 * row[2], 4 * row[3])):
            differences.append(f"{row[0]:#x}: {found} instead of {row}")
    return len(starts) + len(old), differences


def _wanted(row: tuple) -> tuple:
    rva, size, local, parameters, _stack, prologue, saved, _seh, has_eh, is_start, program = row
    return rva, size, local, parameters, prologue, saved, has_eh, is_start, program


def _new(data: FrameData) -> tuple:
    sizes = data.locals_size, data.parameters_size, data.prologue_size, data.saved_registers_size
    return data.rva, data.size, *sizes, data.has_eh, data.is_function_start, data.program.strip()


def _old(data: FrameData) -> tuple:
    return data.rva, data.size, data.locals_size, data.parameters_size
