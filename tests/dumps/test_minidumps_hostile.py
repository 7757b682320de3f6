# SPDX-License-Identifier: Apache-2.0
"""Minidumps of processes whose memory, or the kernel's about them, is noise in places: a valid file, or a reason."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

import throwstack
from tests.conftest import Forge
from tests.support.minidump_parts import Parts
from throwstack.core.memory import PAGE_SIZE, Memory, PageSource
from throwstack.pages.resolver import ResolvedPages

CASES = ("service-x64", "wow64-service", "ftp-2003")
EDGES = (0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1, (1 << 64) - PAGE_SIZE)


class Noise:
    """A `PageSource` with some pages absent and some altered: words at the edges of what counts can be, or bits."""

    def __init__(self, source: PageSource, seed: int, share: float) -> None:
        self._source = source
        self._seed = seed
        self._share = share

    def page(self, address: int) -> bytes | None:
        page = self._source.page(address)
        chance = random.Random(f"{self._seed} {address}")
        if page is None or chance.random() >= self._share:
            return page
        if chance.random() < 0.2:
            return None
        altered = bytearray(page)
        for _ in range(chance.randrange(1, 16)):
            at = chance.randrange(PAGE_SIZE // 8) * 8
            if chance.random() < 0.5:
                altered[at : at + 8] = chance.choice(EDGES).to_bytes(8, "little")
            else:
                altered[at] ^= 1 << chance.randrange(8)
        return bytes(altered)


def attack(out: Path, directory: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write all minidumps with noise in the processes' memory, and in the kernel's after opening; return problems."""
    chance = random.Random(seed)
    original = ResolvedPages.page
    share = chance.choice((0.02, 0.1, 0.5))

    class Original:
        def __init__(self, pages: ResolvedPages) -> None:
            self.page = original.__get__(pages)

    monkeypatch.setattr(ResolvedPages, "page", lambda pages, at: Noise(Original(pages), seed, share).page(at))
    with throwstack.open(out / "MEMORY.DMP", symbols=out / "isf", symbol_path="", offline=True) as dump:
        machine = dump._machine
        machine.memory = Memory(Noise(machine.memory, seed, share / 4))
        reports = list(
            dump.minidumps(directory, full=seed % 3 == 0, pids=[process.pid for process in dump.processes()])
        )
    problems = []
    for report in reports:
        if report.path is None:
            assert report.problem
            problems.append(report.problem)
            continue
        parts = Parts.of(report.path)
        assert parts.threads is not None
        assert all(parts.memory.values())
        assert parts.comment.isprintable() or set(parts.comment) - {"\n"}
        regions = parts.regions if "memory-info" in parts.streams else []
        assert all(one[0] + one[3] <= other[0] for one, other in pairwise(regions))
        assert report.path.parent == directory
    return problems


@pytest.mark.parametrize("seed", range(9))
def test_noise_leads_to_a_valid_file_or_a_reason(
    forged: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
):
    out, _ = forged(CASES[seed % len(CASES)])
    problems = attack(out, tmp_path, seed, monkeypatch)
    assert not any("unexpected" in problem for problem in problems)
