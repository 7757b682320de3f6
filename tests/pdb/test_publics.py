# SPDX-License-Identifier: Apache-2.0
"""Public symbols, by address and by name."""

from __future__ import annotations

import pytest

from tests.support.open_pdb import GUID, opened
from tests.support.pdb_writer import Pdb, Public
from throwstack.pdb.publics import Publics

SECTIONS = [(".textbss", 0x1000, 0x1000), (".text", 0x2000, 0x1000)]
PUBLICS = [
    Public("?h@B@@QAEXXZ", 0x2080),
    Public("_enc$textbss$end", 0x1FF0, is_function=False),
    Public("_main", 0x2010),
    Public("_table", 0x2040, is_function=False),
    Public("?f@A@@QAEXH@Z", 0x2040),
    Public("?f@A@@QAEXXZ", 0x2060),
    Public("?f@B@@QAEXXZ", 0x2080),
]


@pytest.fixture
def publics(tmp_path) -> Publics:
    return opened(tmp_path, Pdb(GUID, sections=SECTIONS, publics=PUBLICS)).publics


def names(found) -> list[str]:
    return [symbol.name for symbol in found]


def test_the_nearest_one_before_an_address(publics):
    assert len(publics) == 7
    assert names(publics.nearest(2, 0x1F)) == ["_main"]
    assert names(publics.nearest(2, 0x10)) == ["_main"]


def test_none_of_another_section(publics):
    """Symbolic shows `_enc$textbss$end` for the first bytes of .text in incremental builds."""
    assert publics.nearest(2, 0x0F) == ()
    assert names(publics.nearest(1, 0xFFF)) == ["_enc$textbss$end"]
    assert publics.nearest(3, 0) == ()


def test_functions_come_first(publics):
    assert names(publics.at(2, 0x40)) == ["?f@A@@QAEXH@Z", "_table"]
    assert publics.at(2, 0x41) == ()


def test_folded_functions_are_together(publics):
    assert sorted(names(publics.at(2, 0x80))) == ["?f@B@@QAEXXZ", "?h@B@@QAEXXZ"]


def test_a_decorated_name_is_found_by_its_hash(publics):
    assert [(symbol.section, symbol.offset) for symbol in publics.named("_main")] == [(2, 0x10)]
    assert list(publics.named("main")) == []


def test_names_that_begin_alike_are_searched_for(publics):
    assert names(publics.beginning((b"?f@A@@",))) == ["?f@A@@QAEXH@Z", "?f@A@@QAEXXZ"]
    assert names(publics.beginning((b"f@A@@",))) == []
    assert names(publics.beginning(())) == []


def test_many_publics_are_not_read_for_one(tmp_path):
    many = [Public(f"_function_number_{index}", 0x1000 + 16 * index) for index in range(20_000)]
    pdb = opened(tmp_path, Pdb(GUID, publics=many))
    read = []
    whole = pdb.msf.read_blocks
    pdb.msf.read_blocks = lambda number, count: read.append(number) or whole(number, count)
    (found,) = pdb.publics.nearest(1, 16 * 12_345 + 7)
    assert found.name == "_function_number_12345"
    assert len(read) < 40


def test_a_pdb_without_public_symbols(tmp_path):
    publics = opened(tmp_path, Pdb(GUID)).publics
    assert (len(publics), publics.nearest(1, 0), list(publics.named("x"))) == (0, (), [])
