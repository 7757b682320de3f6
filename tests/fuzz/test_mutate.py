# SPDX-License-Identifier: Apache-2.0
"""Mutations: the same from the same numbers, of the length they promise; text that should have been escaped is seen."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("resource", reason="limits of memory and time are set in ways that Windows has not")
from tests.fuzz.ground import Ground, Shot
from tests.fuzz.mutate import edit, mutate
from tests.fuzz.verdicts import Overdue, control_characters, fault_of, limited_time

DATA = bytes(range(256))


def test_a_mutant_is_made_from_its_numbers_alone():
    assert [mutate(random.Random(seed), DATA) for seed in range(50)] == [
        mutate(random.Random(seed), DATA) for seed in range(50)
    ]
    assert len({mutate(random.Random(seed), DATA) for seed in range(50)}) > 45


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_an_edit_never_reaches_past_the_end_of_the_data(size: int):
    for seed in range(300):
        made = edit(random.Random(seed), DATA[:size], [0x1234], DATA)
        assert 0 <= made.at <= made.at + len(made.data) <= size


def test_mutants_that_keep_their_size_do():
    assert {len(mutate(random.Random(seed), DATA, DATA, keeps_size=True)) for seed in range(300)} == {len(DATA)}


def test_ground_is_changed_where_it_is_aimed_at():
    ground = Ground([(0x1000, bytes(0x2000))])
    ground.aim(0x1FF0, 0x20)
    assert ground.hot == [(0x1FF0, 0x10), (0x2000, 0x10)]
    for seed in range(100):
        memory = ground.mutate(random.Random(seed), Shot())
        first, second = memory.page(0x1000), memory.page(0x2000)
        assert first is None or not any(first[:0xFF0])
        assert second is None or not any(second[0x10:])


@pytest.mark.parametrize(
    ("text", "unshown"),
    [
        ("ntdll!RtlRaiseException+0x58 größe 日本", ""),
        ("a\x1b[31m", r"\x1b"),
        ("a\x9bm", r"\x9b"),
        ("a\nb", r"\n"),
        ("a\u202eb", r"\u202e"),
        ("a\u2066b", r"\u2066"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_seen(text: str, unshown: str):
    assert control_characters(text) == unshown


def test_what_takes_too_long_is_a_hang_whatever_it_catches():
    def stubborn() -> None:
        while True:
            try:
                pass
            except Exception:  # noqa: BLE001 - as a guard would
                continue

    with pytest.raises(Overdue) as caught, limited_time(0.01):
        stubborn()
    assert fault_of(caught.value).kind == "hang"
