# SPDX-License-Identifier: Apache-2.0
"""Counts how many pages of each process's stacks and images can be read, by where they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from volatility3.framework import interfaces

from throwstack.core.frames import StackBounds
from throwstack.core.memory import PAGE_SIZE, MemoryUnreadable
from throwstack.pages.page_origin import PageOrigin
from throwstack.pages.process_coverage import ProcessCoverage
from throwstack.stuck.triage import Triage
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.threads import Thread
from throwstack.volatility.processes import NoStack, Process, ProcessReader

_STACK_PAGES = 64
"""How many pages of each stack are looked at, counted from its base (the high end), where the outermost frames are."""
_IMAGE_PAGES = 16
"""How many pages of each image are looked at, spread evenly. To look at all would take minutes on a large machine."""


def coverage(machine: Machine, problems: list[str]) -> Iterator[ProcessCoverage]:
    """Yield how many stack and image pages can be read of every process that has user-mode memory.

    If the kernel's list of processes breaks off, the processes beyond the break are left out. A sentence is added to
    `problems` for each process that cannot be examined, for each file that cannot be read, for members that the symbols
    lack, and if the list breaks off.
    """
    reader = ProcessReader(machine)
    breaks_off = guarded(lambda reason: problems.append(f"the kernel's list of processes breaks off: {reason}"))
    for item in breaks_off.each(machine.processes()):
        found = _examined(reader, item, problems)
        if found is not None:
            yield found
    problems += [*machine.lost_routes, *machine.read_problems]


def _examined(
    reader: ProcessReader, item: interfaces.objects.ObjectInterface, problems: list[str]
) -> ProcessCoverage | None:
    with guarded(lambda reason: problems.append(f"{reader.describe(item)} cannot be examined: {reason}")):
        opened = reader.open(item)
        return None if opened is None else _coverage(reader, opened)
    return None


def _coverage(reader: ProcessReader, process: Process) -> ProcessCoverage:
    origin = process.pages.origin
    stacks: Counter[PageOrigin] = Counter()
    problems = list(process.problems)
    for thread in process.threads:
        if thread.is_terminated or not thread.teb:
            continue
        stacks.update(_stack_pages(reader, process, thread, problems))
    images: Counter[PageOrigin] = Counter()
    for target in process.sides.values():
        for image in target.images:
            pages = image.module.size // PAGE_SIZE
            step = max(1, pages // _IMAGE_PAGES)
            images.update(origin(image.base + page * PAGE_SIZE) for page in range(0, pages, step))
    missing = [Triage(target).missing_names for target in process.sides.values()]
    nameless = tuple(dict.fromkeys(label for labels, _ in missing for label in labels))
    if nameless:
        problems.append(f"the exports of {', '.join(nameless)} are not readable")
    problems.extend(dict.fromkeys(reason for _, reasons in missing for reason in reasons))
    return ProcessCoverage(process.pid, process.name, len(process.threads), stacks, images, tuple(problems), nameless)


def _stack_pages(reader: ProcessReader, process: Process, thread: Thread, problems: list[str]) -> Counter[PageOrigin]:
    origin = process.pages.origin
    pages: Counter[PageOrigin] = Counter()
    with guarded(lambda reason: problems.append(f"thread {thread.tid}: {reason}")):
        found = list(_stacks(reader, process, thread))
        if not found:
            problems.append(f"thread {thread.tid}: TEB {origin(thread.teb).value}")
        for bounds in found:
            start = max(bounds.limit, bounds.base - _STACK_PAGES * PAGE_SIZE)
            pages.update(origin(page) for page in range(start & -PAGE_SIZE, bounds.base, PAGE_SIZE))
    return pages


def _stacks(reader: ProcessReader, process: Process, thread: Thread) -> Iterator[StackBounds]:
    for side in process.sides:
        try:
            yield reader.stack(process, thread, side).bounds
        except (NoStack, MemoryUnreadable):
            continue
