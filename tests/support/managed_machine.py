# SPDX-License-Identifier: Apache-2.0
"""A whole dump of a machine on which a forged .NET process runs: for tests of what opens dumps."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from tests.forge.build import build
from tests.forge.describe import LoadedModule, Machine, Paging, Process, Protection, Region, Thread
from tests.support.managed_heap import TEBS, ForgedRuntime
from throwstack.core.memory import PAGE_SIZE

PID = 0x208
_STACKS, _STACK_SIZE = 0x71000000, 0x4000


def dump_of(process: ForgedRuntime, threads: dict[int, int], out: Path) -> Path:
    """Write MEMORY.DMP and isf/ into `out`, and return the dump's path.

    `threads` are the runtime's Threads of the process by thread id. The TEBs are Windows' here, without the runtime's
    thread-local storage; each Thread is known to its own stack, as functions of the runtime keep its address there.
    """
    size, regions, stacks = process.size, list(_regions(process)), []
    for number, (tid, teb) in enumerate(process.threads):
        base = _STACKS + (number + 1) * 2 * _STACK_SIZE
        words = threads[tid].to_bytes(size, "little").rjust(_STACK_SIZE - 0x100, b"\0").ljust(_STACK_SIZE, b"\0")
        regions.append(Region(base - _STACK_SIZE, words))
        stacks.append(Thread(tid, teb, base, base - _STACK_SIZE, {"rip": 0x10001000, "rsp": base - 0x800}))
    modules = [LoadedModule(m.name, m.path, m.base, m.size) for m in (image.module for image in process.images)]
    described = Process(PID, "shop.exe", modules=modules, regions=regions, threads=stacks, peb=0x7FFDE000)
    return build(Machine(Paging.X64, (10, 0, 19041), [described]), out).dump


def _regions(process: ForgedRuntime) -> list[Region]:
    """Return the pages of the process but its TEBs, each run of them as a region."""
    found = []
    images = {image.base: image.module for image in process.images}
    pages = sorted(page for page in process.pages if not TEBS <= page < TEBS + 0x1000000)
    for _, run in groupby(enumerate(pages), lambda item: item[1] - item[0] * PAGE_SIZE):
        own = [page for _, page in run]
        data = b"".join(bytes(process.pages[page]) for page in own)
        module = images.get(own[0])
        if module is None:
            found.append(Region(own[0], data))
        else:
            data = data.ljust(module.size, b"\0")
            found.append(Region(own[0], data, Protection.EXECUTE_WRITE_COPY, file=module.path[2:], is_image=True))
    return found
