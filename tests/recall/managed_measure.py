# SPDX-License-Identifier: Apache-2.0
"""Lays losses of pages over captured .NET processes, one at a time, and judges what is left of the report."""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from unittest import mock

import throwstack
from tests.live.capture import Capture
from tests.live.hand_over import hand_over
from tests.managed_live.managed_compare import compare
from tests.managed_live.saved_captures import load
from tests.managed_live.seen import seen_exception
from tests.recall.managed_facts import Facts, differences, facts_of, lost
from tests.recall.managed_losses import Contents, ManagedKind, kinds_of_pages
from tests.recall.overlay import Overlay
from tests.recall.subjects import CHECKOUT, Answer, Stuck, Subject
from throwstack.core.guard import UNEXPECTED
from throwstack.managed import process_code
from throwstack.report.crash_report import CrashReport
from throwstack.volatility.crashes import crash_of
from throwstack.volatility.processes import ProcessReader

_SHOWN = 4


class ManagedResult(Enum):
    """What is said of the stuck thread, best first."""

    RIGHT = "row right"
    """All that is said without the loss."""
    REMARKED = "a remark more"
    """All of it, and a remark."""
    LESS = "less, with a reason"
    """Names, types, messages or frames are missing, and a remark says why."""
    WARNING = "warning"
    """No row, and a warning that names the process and, if the loss is of the thread, the thread."""
    OTHER = "another fact"
    """A name, type or message is another one than without the loss."""
    SILENT = "silent"
    """Something is missing, or the row is, without a word."""
    LOST = "row lost"
    """A page of the runtime's is gone and with it the row, though with a warning."""


BAD = frozenset({ManagedResult.OTHER, ManagedResult.SILENT, ManagedResult.LOST})


@dataclass(frozen=True)
class ManagedOutcome:
    """What came of the loss of `page`; `false` is what must not be, `what` is missing or other, `said` is new."""

    name: str
    runtime: str
    kind: ManagedKind
    page: int
    where: str
    result: ManagedResult
    what: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    false: tuple[str, ...] = ()

    @property
    def is_bad(self) -> bool:
        """Say whether this must not be."""
        return self.result in BAD or bool(self.false)

    def __str__(self) -> str:
        """Return a line that says what was lost, and what came of it."""
        head = f"{self.name}: {self.kind.value} {self.page:#x} ({self.where}): {self.result.value}"
        parts = [head, *self.what[:_SHOWN], *(f"said: {text[:160]}" for text in self.said[:_SHOWN])]
        return "; ".join([*parts, *(f"FALSE: {text}" for text in self.false)])


class ManagedSubject:
    """A captured .NET process in an opened dump, with its truth."""

    def __init__(self, subject: Subject, capture: Capture, truth: dict[str, Any]) -> None:
        self._subject = subject
        self._capture = capture
        self._truth = truth
        self._tid, self._pid = int(truth["tid"]), capture.pid
        self._overlay = Overlay()
        self._usual, self._crash = self._answer()

    def undamaged(self) -> list[str]:
        """Return what is wrong when nothing is lost: the row against the truth, and any warning."""
        problems = [f"a row of thread {tid}" for tid in self._usual.rows if tid != self._tid]
        problems += [f"{warning.pid} {warning.tid}: {warning.text}" for warning in self._usual.warnings]
        if self._crash is None or self._crash.exception is None:
            return [*problems, "no row"]
        found = compare(self._capture, self._truth, seen_exception(self._crash.exception))
        return [f"{self._truth['name']}: {problem}" for problem in (*problems, *found.problems)]

    def outcomes(self, most: int | None, seed: int, kinds: Collection[ManagedKind]) -> Iterator[ManagedOutcome]:
        """Yield what comes of the losses: of each kind `most`, chosen by `seed`, or all if None."""
        assert self._crash is not None
        pages = set(self._overlay.read)
        usual, by_kind = facts_of(self._crash), dict[ManagedKind, list[int]]()
        for page, kind in kinds_of_pages(self._contents(), pages):
            by_kind.setdefault(kind, []).append(page)
        for kind in (kind for kind in ManagedKind if kind in by_kind and kind in kinds):
            chosen = by_kind[kind]
            if most is not None and len(chosen) > most:
                chosen = random.Random(f"{seed} {self._truth['name']} {kind}").sample(chosen, most)
            for page in chosen:
                yield self._outcome(usual, kind, page)

    def outcome(self, kind: ManagedKind, page: int) -> ManagedOutcome:
        """Return what comes of the loss of one page."""
        assert self._crash is not None
        return self._outcome(facts_of(self._crash), kind, page)

    def _contents(self) -> Contents:
        assert self._crash is not None
        process = self._subject.process(self._pid)
        assert process is not None
        side, target = next(iter(process.sides.items()))
        runtime = process.managed[side].runtime
        assert runtime is not None
        runtime.last_thrown(self._tid)
        managed, self._overlay = self._overlay, Overlay()
        with mock.patch.object(process_code, "find_runtime_module", return_value=None):
            self._answer()
        native, self._overlay = frozenset(self._overlay.read), managed
        return Contents(self._capture, self._tid, target.memory, tuple(target.images), runtime, self._crash, native)

    def _outcome(self, usual: Facts, kind: ManagedKind, page: int) -> ManagedOutcome:
        answer, crash = self._answer(page)
        what = self._truth["name"], self._truth["runtime"], kind, page, self._where(page)
        false = tuple(self._false(answer, kind))
        new = [warning for warning in answer.warnings if warning not in self._usual.warnings]
        if crash is None:
            about = {(self._pid, self._tid)} | (set() if kind.is_of_thread else {(self._pid, None)})
            said = tuple(one.text for one in new if (one.pid, one.tid) in about)
            result = ManagedResult.WARNING if said else ManagedResult.SILENT
            if kind.is_managed and said:
                result = ManagedResult.LOST
            return ManagedOutcome(*what, result, said=said, false=false)
        now = facts_of(crash)
        loss = lost(usual, now)
        if loss.other:
            result, names = ManagedResult.OTHER, loss.other
        elif loss.silent:
            result, names = ManagedResult.SILENT, loss.silent
        elif loss.missing:
            result, names = ManagedResult.LESS, loss.missing
        else:
            result, names = (ManagedResult.REMARKED if loss.said else ManagedResult.RIGHT), ()
        return ManagedOutcome(*what, result, tuple(differences(usual.values, now.values, names)), loss.said, false)

    def _false(self, answer: Answer, kind: ManagedKind) -> Iterator[str]:
        """Yield what must not be: rows of threads that are not stuck, defects."""
        for tid, row in answer.rows.items():
            if tid != self._tid and (kind.is_of_thread or not row.stuck.notes):
                yield f"a row of thread {tid}"
        yield from (warning.text for warning in answer.warnings if UNEXPECTED in warning.text)

    def _where(self, page: int) -> str:
        module = next((one for one in self._capture.modules if one.base <= page < one.base + one.size), None)
        return "private" if module is None else f"{module.name}+{page - module.base:#x}"

    def _answer(self, page: int | None = None) -> tuple[Answer, CrashReport | None]:
        """Survey the process without `page`, and report on the stuck thread."""
        self._overlay.changes = {} if page is None else {page: None}
        machine, overlay = self._subject.machine, self._overlay
        self._subject.reader = ProcessReader(machine)  # nothing of another loss is known
        original = type(machine).process_pages
        with mock.patch.object(machine, "process_pages", lambda *where: overlay.over(original(machine, *where))):
            answer = self._subject.answer(self._pid)
            row = answer.rows.get(self._tid)
            return answer, None if row is None else crash_of(machine, row)


@contextlib.contextmanager
def managed_subject(folder: Path) -> Iterator[ManagedSubject]:
    """Make a dump of the capture in `folder`, which `make test-managed` left there, and open it."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    capture = load(folder)
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        hand_over(capture, capture.modules[0].name, out)
        symbols = [out / "isf", CHECKOUT / "symbols"]
        with throwstack.open(out / "MEMORY.DMP", symbols=symbols, symbol_path="", image_path="", offline=True) as dump:
            stuck = (Stuck(capture.pid, int(truth["tid"]), None, None),)
            yield ManagedSubject(Subject(folder.name, dump._machine, stuck), capture, truth)
