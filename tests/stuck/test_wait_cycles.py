# SPDX-License-Identifier: Apache-2.0
"""Cycles of waits, in small graphs: `{1: [2]}` says that node 1 waits for node 2."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.stuck.wait_cycles import WaitCycles


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ({}, ()),
        ({1: [2]}, ()),
        ({1: [2], 2: [1]}, (1, 2)),
        ({1: [2], 2: [3], 3: [2]}, (2, 3)),  # 1 waits for the cycle, but is not in it
        ({1: [1]}, (1,)),
        ({1: [2, 3], 2: [4], 3: [1]}, (1, 3)),
        ({1: [2, 3], 2: [4], 3: [4]}, ()),  # two ways to one node are no cycle
    ],
)
def test_the_cycle_that_a_node_is_in_or_leads_to_is_found(edges: dict[int, list[int]], expected: tuple[int, ...]):
    assert WaitCycles[int](lambda node: edges.get(node, [])).of(1) == expected


def test_a_chain_of_waits_without_end_has_no_cycle():
    assert WaitCycles[int](lambda node: [node + 1]).of(0) == ()


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 12), max_size=4)))
def test_each_node_of_a_cycle_waits_for_the_next(edges: dict[int, list[int]]):
    found = WaitCycles[int](lambda node: edges.get(node, [])).of(0)
    for node, after in zip(found, (*found[1:], *found[:1]), strict=True):
        assert after in edges[node]


def test_each_node_of_a_long_chain_is_asked_once_however_many_searches_start_in_it():
    asked: list[int] = []

    def waits_for(node: int) -> tuple[int, ...]:
        asked.append(node)
        return (node + 1,) if node < 10_000 else ()

    cycles = WaitCycles[int](waits_for)
    assert not any(cycles.of(thread) for thread in range(10_000))
    assert len(asked) <= 10_001


def test_a_node_that_leads_to_a_cycle_finds_it_after_other_nodes_were_searched():
    waits = {1: (2,), 2: (), 3: (1, 4), 4: (5,), 5: (4,)}
    cycles = WaitCycles[int](waits.__getitem__)
    assert cycles.of(1) == ()
    assert cycles.of(3) == (4, 5)
    assert cycles.of(5) == (5, 4)
