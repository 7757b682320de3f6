# SPDX-License-Identifier: Apache-2.0
"""How much of each process's stacks and images can be read, and by which route."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

from volatility3.framework import exceptions

from throwstack.frames import StackBounds
from throwstack.memory import PAGE_SIZE, MemoryUnreadable
from throwstack.pages.coverage import ProcessCoverage
from throwstack.pages.origin import PageOrigin
from throwstack.triage import Triage
from throwstack.volatility.machine import Machine
from throwstack.volatility.processes import NoStack, Process, ProcessReader
from throwstack.volatility.threads import Thread

log = logging.getLogger(__name__)

_STACK_PAGES = 64
"""Of a stack, the pages nearest its base are looked at: those that a walk needs."""
_IMAGE_PAGES = 16
"""Of an image, this many pages are looked at, spread evenly; all would take minutes on a large machine."""


def coverage(machine: Machine, problems: list[str]) -> Iterator[ProcessCoverage]:
    """Yield what can be read of every process that has user-mode memory; ends where the list of processes breaks.

    `problems` takes a sentence for each process that cannot be examined at all.
    """
    reader = ProcessReader(machine)
    try:
        for item in machine.processes(lambda _: False):
            try:
                opened = reader.open(item)
            except (MemoryUnreadable, exceptions.InvalidAddressException) as error:
                problems.append(f"the process at {machine.canonical(item.vol.offset):#x} cannot be examined: {error}")
                continue
            if opened is not None:
                yield _coverage(reader, opened)
    except exceptions.InvalidAddressException as error:
        log.info("the list of processes breaks off: %s", error)


def _coverage(reader: ProcessReader, process: Process) -> ProcessCoverage:
    origin = process.pages.origin
    stacks: Counter[PageOrigin] = Counter()
    problems = list(process.problems)
    for thread in process.threads:
        if thread.is_terminated or not thread.teb:
            continue
        found = list(_stacks(reader, process, thread))
        if not found:
            problems.append(f"thread {thread.tid}: TEB {process.pages.origin(thread.teb).value}")
        for bounds in found:
            start = max(bounds.limit, bounds.base - _STACK_PAGES * PAGE_SIZE)
            stacks.update(origin(page) for page in range(start & -PAGE_SIZE, bounds.base, PAGE_SIZE))
    images: Counter[PageOrigin] = Counter()
    for target in (process.native, process.wow64):
        for image in target.images if target is not None else ():
            pages = image.module.size // PAGE_SIZE
            step = max(1, pages // _IMAGE_PAGES)
            images.update(origin(image.base + page * PAGE_SIZE) for page in range(0, pages, step))
    targets = (target for target in (process.native, process.wow64) if target is not None)
    missing = [Triage(target).missing_names for target in targets]
    nameless = tuple(dict.fromkeys(label for labels, _ in missing for label in labels))
    if nameless:
        problems.append(f"the exports of {', '.join(nameless)} are not readable")
    problems.extend(dict.fromkeys(reason for _, reasons in missing for reason in reasons))
    return ProcessCoverage(process.pid, process.name, len(process.threads), stacks, images, tuple(problems), nameless)


def _stacks(reader: ProcessReader, process: Process, thread: Thread) -> Iterator[StackBounds]:
    for read in (reader.stack, reader.wow64_stack):
        try:
            yield read(process, thread).bounds
        except (NoStack, MemoryUnreadable):
            continue
