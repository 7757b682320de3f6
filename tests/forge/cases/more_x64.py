# SPDX-License-Identifier: Apache-2.0
"""Small Windows 10 x64 cases: nothing crashed, a PEB that is paged out, many processes."""

from __future__ import annotations

from tests.forge.cases import Case
from tests.forge.cases.machine_x64 import HEAP, Site
from tests.forge.describe import Residency


def quiet() -> Case:
    """Windows 10 x64, nothing crashed: threads that wait, and decoys."""
    site = Site("quiet")
    for pid in (0x11A0, 0x12C4):
        process, threads = site.service(pid)
        site.add(process, *(threads.idle(pid + 4 * i, kind, 3000 + i) for i, kind in _each(("main", "pool", "sleep"))))
        site.add(process, threads.recovered(pid + 0x20, 6000), threads.with_filter_address(pid + 0x24, 6100))
    return site.case()


def paged_peb() -> Case:
    """Windows 10 x64: a crashed process beside one whose PEB and loader data are paged out."""
    site = Site("paged-peb")
    process, threads = site.service(0x1180, loader_residency=Residency.PAGED_OUT)
    site.add(process, *(threads.idle(0x1184 + 4 * i, kind, 4000 + i) for i, kind in _each(("main", "sleep"))))
    process, threads = site.service(0x14B8)
    site.add(process, threads.idle(0x14BC, "main", 3000), threads.throw(0x14C8, HEAP, 6400))
    return site.case()


def fleet(processes: int = 200, threads_each: int = 20) -> Case:
    """Windows 10 x64 with 200 processes and 4,000 threads, of which 3 crashed."""
    site = Site("fleet", with_stacks=False)
    kinds = ("main", "pool", "sleep")
    for number in range(processes):
        pid = 0x1000 + 0x100 * number
        process, threads = site.service(pid)
        crashes = number in (processes // 8, processes // 2, processes - 1)
        for index in range(threads_each - crashes):
            kind = kinds[0] if index == 0 else kinds[1 + index % 2]
            site.add(process, threads.idle(pid + 4 + 4 * index, kind, 1000 + 20 * index, 0x1000))
        if crashes:
            tid = pid + 4 * threads_each
            site.add(process, threads.fault(tid, 6800) if number == processes // 2 else threads.throw(tid, HEAP, 6500))
    return site.case()


def peers(processes: int = 10, threads_each: int = 20) -> Case:
    """Windows 10 x64 for a look with other tools too: 200 threads, all stacks in the truth, entries for stubs."""
    site = Site("peers", stubs_are_listed=True)
    kinds = ("main", "sleep", "pool")
    for number in range(processes):
        pid = 0x1000 + 0x100 * number
        process, threads = site.service(pid)
        tids = iter(range(pid + 4, pid + 0x100, 4))
        for index in range(threads_each - 4):
            site.add(process, threads.idle(next(tids), kinds[index % 3], 1000 + 20 * index))
        site.add(process, threads.recovered(next(tids), 6000), threads.with_filter_address(next(tids), 6100))
        site.add(process, threads.throw(next(tids), HEAP, 6400), threads.fault(next(tids), 6900))
    return site.case()


def _each(kinds: tuple[str, ...]) -> list[tuple[int, str]]:
    return list(enumerate(kinds, 1))
