# SPDX-License-Identifier: Apache-2.0
"""How long the reading of one PDB may take."""

from __future__ import annotations

import pytest

from tests.support.open_pdb import GUID, opened
from tests.support.pdb_writer import Pdb, Procedure, Public
from throwstack.core.errors import ThrowstackError
from throwstack.pdb.pdb_table import PdbTable
from throwstack.pdb.time_limit import LIMIT, TimeLimit


@pytest.fixture
def clock(monkeypatch):
    """The seconds, which go on as the test says."""
    seconds = [100.0]
    monkeypatch.setattr("throwstack.pdb.time_limit.time.monotonic", lambda: seconds[0])
    return seconds


def test_only_the_time_inside_counts_and_that_of_a_nested_block_once(clock):
    limit = TimeLimit(ThrowstackError, 10)
    for _ in range(3):
        with limit, limit:
            clock[0] += 3
        clock[0] += 1000
    limit.check()
    with limit:
        clock[0] += 2
        with pytest.raises(ThrowstackError, match="took more than 10 s"):
            limit.check()
    with pytest.raises(ThrowstackError, match="given up"), limit:
        pytest.fail("the block is not entered")


def test_a_pdb_that_took_too_much_answers_nothing_more_and_says_so_once(tmp_path, clock):
    pdb = Pdb(GUID, procedures=[Procedure("f", 0x1000, 0x20)], publics=[Public("_g", 0x1040)])
    said: list[str] = []
    table = PdbTable(opened(tmp_path, pdb), said.append)
    assert table.locate(0x1008)[0].symbol == "f"
    with table.pdb.msf.time:
        clock[0] += LIMIT + 1
    assert table.locate(0x1008)[0].symbol == "f"  # known already
    assert (table.locate(0x1009), table.nearest(0x1044), table.rvas_of("g")) == ((), None, [])
    assert (table.frame_data(0x1000), table.details.at(0x1004), len(table)) == (None, None, 0)
    assert said == [f"{table.pdb.msf.path}: given up: reading it took more than 120 s"]
