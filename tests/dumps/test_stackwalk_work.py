# SPDX-License-Identifier: Apache-2.0
"""The work of `windows.stackwalk` grows with the number of threads, not with its square."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest

import throwstack
from tests.forge.__main__ import forge
from tests.forge.cases.more_x64 import Site
from tests.support.checkout_plugins import STACKWALK
from tests.support.volatility_session import open_dump
from throwstack.stuck.wait_cycles import WaitCycles

FEW, MANY = 100, 200


def calls_of_a_run(out: Path, threads: int) -> int:
    """Forge one process with so many threads, and count the calls (each step of a generator is one) of a run."""
    site = Site(f"threads-{threads}", with_stacks=False)
    process, made = site.service(0x1000)
    for index in range(threads):
        site.add(process, made.idle(0x1004 + 4 * index, "pool" if index % 2 else "sleep", 1000 + index, 0x1000))
    forge(site.case(), out)
    counted = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal counted
        if event == "call" and frame.f_code.co_filename.startswith(throwstack.__path__[0]):
            counted += 1

    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        sys.setprofile(count)
        try:
            rows = session.rows(STACKWALK)
        finally:
            sys.setprofile(None)
    assert len({row["TID"] for row in rows}) == threads
    return counted


def test_twice_the_threads_take_twice_the_work(tmp_path: Path):
    few, many = (calls_of_a_run(tmp_path / str(threads), threads) for threads in (FEW, MANY))
    assert many < 2.05 * few


@pytest.mark.parametrize("end", [(), (0,), (1500,)], ids=["no cycle", "one large cycle", "a cycle at the end"])
def test_each_wait_of_a_chain_is_asked_for_once(end: tuple[int, ...]):
    """2,000 threads, each of which waits for the next."""
    asked: list[int] = []

    def waits_for(node: int) -> tuple[int, ...]:
        asked.append(node)
        return (node + 1,) if node < 1999 else end

    cycles = WaitCycles(waits_for)
    found = [cycles.of(node) for node in range(2000)]
    assert sorted(asked) == list(range(2000))
    if end:
        cycle = set(range(end[0], 2000))
        assert all(set(nodes) == cycle for nodes in found)
        assert [nodes[0] for nodes in found] == [max(node, end[0]) for node in range(2000)]
    else:
        assert not any(found)
