# SPDX-License-Identifier: Apache-2.0
"""A small part of `python -m tests.fuzz plugins`, always the same, and what the fuzzer has to notice. Not portable."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

if not hasattr(os, "fork"):
    pytest.skip("each mutant has a process of its own, made by fork", allow_module_level=True)

from tests.fuzz.answers import answers_of
from tests.fuzz.pages import Maker
from tests.fuzz.plugins import PLUGINS, Attack, plugin
from tests.fuzz.scenes import Scene, opened

CASES = ("service-x64", "nested", "decoys-x86", "store-x64")
COUNT = 24
SEED = 20


def test_the_plugins_survive_mutated_dumps():
    with Attack(CASES, SEED) as attack:
        outcomes = [attack.run(number) for number in range(COUNT)]
    assert [fault for outcome in outcomes for fault in outcome.faults] == []


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with opened("nested") as made:
        yield made


def test_pieces_are_where_the_forge_put_them(scene: Scene):
    """The bytes of a saved CONTEXT's piece are its flags; those of an EPROCESS's name its name."""
    atlas = scene.atlas
    stuck = scene.case.truth.stuck[0]
    piece = next(piece for piece in atlas.pieces["contexts"] if piece.address == stuck.context)
    page = scene.memory.page(piece.physical // 0x1000)
    assert page is not None
    at = piece.physical % 0x1000
    assert int.from_bytes(page[at + 0x30 : at + 0x34], "little") >> 16 == 0x10
    assert atlas.owners(piece.physical, 1) == {stuck.pid}
    process = next(one for one in atlas.record.processes if one.pid == stuck.pid)
    frame = atlas.frame(atlas.kernel.space, process.block.at("ImageFileName"))
    assert frame is not None
    name_at = process.block.at("ImageFileName") % 0x1000
    assert atlas.physical.pages[frame[0]][name_at : name_at + 4] == stuck.process.encode()[:4]
    assert atlas.owners(frame[0] * 0x1000 + name_at, 4) == {stuck.pid}


def test_links_of_the_list_of_processes_are_everybodys(scene: Scene):
    atlas = scene.atlas
    block = atlas.record.processes[-1].block
    frame = atlas.frame(atlas.kernel.space, block.at("ActiveProcessLinks"))
    assert frame is not None
    assert atlas.owners(frame[0] * 0x1000 + block.at("ActiveProcessLinks") % 0x1000, 8) is None


def test_changes_are_described_and_repeatable(scene: Scene):
    maker = Maker(scene)
    first, second = (maker.make(random.Random(7)) for _ in range(2))
    assert first.pages == second.pages
    assert [str(change) for change in first.changes] == [str(change) for change in second.changes]
    assert all("physical 0x" in str(change) for change in first.changes)


def test_an_unchanged_dump_gives_rows_and_nothing_to_complain_of(scene: Scene):
    scene.enter()
    answers = answers_of(scene, {name: plugin(name) for name in PLUGINS})
    assert (answers.faults, answers.warnings, answers.swallowed) == ([], [], [])
    stuck = scene.case.truth.stuck[0]
    assert ("unhandled", stuck.pid, stuck.tid) in answers.rows
