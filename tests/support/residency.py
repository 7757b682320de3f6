# SPDX-License-Identifier: Apache-2.0
"""Crashed processes whose pages are in other states than valid, and what the plugins answer then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.forge.__main__ import forge
from tests.forge.cases import Case
from tests.forge.describe import Process, Region, Residency
from tests.support.checkout_plugins import CXRSTACK, UNHANDLED
from tests.support.plugins_truth import expected_stacks, expected_unhandled, only
from tests.support.volatility_session import open_dump

PAGE = 0x1000
L1TF_MASK = 1 << 45
Spread = Callable[[Region, int], Residency]


def all_in(state: Residency) -> Spread:
    return lambda _region, _page: state


def spread_over(case: Case, spread: Spread, loader: Residency) -> None:
    """Change the state of all pages of the processes in which a thread is stuck."""
    pids = {stuck.pid for stuck in case.truth.stuck}
    changed = [_spread(one, spread, loader) if one.pid in pids else one for one in case.machine.processes]
    case.machine = replace(case.machine, processes=changed)


def _spread(process: Process, spread: Spread, loader: Residency) -> Process:
    regions = [
        replace(region, residency={page: spread(region, page) for page in range(-(-len(region.data) // PAGE))})
        for region in process.regions
    ]
    return replace(process, regions=regions, loader_residency=loader, teb_residency=loader)


def answers(case: Case, out: Path, *, isf: Path | None = None, **options: Any) -> tuple[list[Any], list[Any]]:
    """Forge the case and return the rows of both plugins."""
    forge(case, out, isf=isf)
    config = {}
    if (out / "pagefile.sys").exists():
        config["automagic.WinSwapLayers.single_swap_locations"] = [(out / "pagefile.sys").as_uri()]
    with open_dump(out / "MEMORY.DMP", out / "isf", config) as session:
        return session.rows(UNHANDLED, **options), session.rows(CXRSTACK, **options)


def check(case: Case, rows: tuple[list[Any], list[Any]]) -> None:
    for found, expected in zip(rows, (expected_unhandled(case.truth), expected_stacks(case.truth)), strict=True):
        assert only(plain(found), expected) == expected


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows as the JSON renderer shows them: absent values are None."""
    return [{name: value if isinstance(value, int | str) else None for name, value in row.items()} for row in rows]
