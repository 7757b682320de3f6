# SPDX-License-Identifier: Apache-2.0
"""An opened machine in which one process sees other pages than its page tables lead to: absent ones, or altered ones.

All other processes see what the dump holds, as they would had this one private copies of those pages.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.patched_memory import opened
from tests.support.volatility_session import Session
from throwstack.pages.page_origin import PageOrigin
from throwstack.pages.resolver import ResolvedPages
from throwstack.volatility.opening.sources import Sources
from throwstack.volatility.survey import Finding, Selection, Survey

PAGE = 0x1000


class AlteredPages(ResolvedPages):
    """The pages of a process, some of them replaced; None stands for one that is not in the dump."""

    __slots__ = ("_altered",)

    def __init__(self, pages: ResolvedPages, altered: Mapping[int, bytes | None]) -> None:
        for name in ResolvedPages.__slots__:
            setattr(self, name, getattr(pages, name))
        self._altered = altered

    def page(self, address: int) -> bytes | None:
        """Return a page, altered or not."""
        if self._altered.get(address, b"") is None:
            return self.resolve(address)[1]
        return self._altered.get(address) or super().page(address)

    def resolve(self, address: int, *, with_files: bool = True) -> tuple[PageOrigin, bytes | None]:
        """Return a page and where it is from."""
        if address not in self._altered:
            return super().resolve(address, with_files=with_files)
        page = self._altered[address]
        if page is None and with_files and self._files is not None:
            page = self._files.page(address)
        return (PageOrigin.NOT_IN_DUMP if page is None else PageOrigin.VALID), page


@dataclass
class Answer:
    """What a survey found, and its warnings."""

    rows: dict[tuple[int, int], tuple[Any, ...]] = field(default_factory=dict)
    """By (PID, TID): side, blockers, (code, instruction, CONTEXT) of the exceptions, names of the stacks that threw."""
    warnings: list[str] = field(default_factory=list)

    def of(self, pid: int) -> dict[tuple[int, int], tuple[Any, ...]]:
        """Return the rows of one process."""
        return {key: row for key, row in self.rows.items() if key[0] == pid}

    def without(self, pid: int) -> dict[tuple[int, int], tuple[Any, ...]]:
        """Return the rows of all other processes."""
        return {key: row for key, row in self.rows.items() if key[0] != pid}

    def names(self, pid: int) -> bool:
        """Say whether a warning names a process."""
        return any(f"PID {pid}" in warning for warning in self.warnings)


def survey(
    session: Session, pid: int = 0, altered: Mapping[int, bytes | None] | None = None, sources: Sources | None = None
) -> Answer:
    """Look at every thread of the machine, the process `pid` having `altered` pages."""
    machine = opened(session)
    if sources is not None:
        machine.sources = sources
    of_machine, eprocess = machine.process_pages, _address(session, pid, machine.canonical)

    def process_pages(directory_base: int, process: int) -> ResolvedPages:
        pages = of_machine(directory_base, process)
        return AlteredPages(pages, altered or {}) if process == eprocess else pages

    machine.process_pages = process_pages  # type: ignore[method-assign]
    with _warnings() as said:
        found = {(one.process.pid, one.thread.tid): _row(one) for one in Survey(machine, Selection()).findings()}
    return Answer(found, said)


def _address(session: Session, pid: int, canonical: Any) -> int | None:
    return canonical(session.processes()[pid].vol.offset) if pid else None


def _row(finding: Finding) -> tuple[Any, ...]:
    stuck = finding.stuck
    thrown = tuple((one.record.code, one.record.address, one.context.address) for one in stuck.exceptions)
    names = tuple(
        finding.target.symbols.name(frame.ip, is_return_address=not frame.is_interrupted)
        for walk in stuck.throwing_walks
        for frame in walk.frames
    )
    return finding.arch, stuck.blocked_in, thrown, names


@contextmanager
def _warnings() -> Iterator[list[str]]:
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("throwstack")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
