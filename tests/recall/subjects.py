# SPDX-License-Identifier: Apache-2.0
"""The dumps that losses are laid over: forged cases and live captures, opened, with what their truth says is stuck."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import throwstack
from tests.forge.__main__ import forge
from tests.forge.cases import Case, builders
from throwstack.core.sides import Side
from throwstack.report.dump_report import ReportWarning, WarningCode
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.processes import Process, ProcessReader
from throwstack.volatility.survey import Finding, Selection, Survey

CHECKOUT = Path(__file__).resolve().parents[2]
BY_EXPORTS = "-exports"
"""The end of the name of a case whose modules have no symbol files: names come from exports, as for most users."""


@dataclass(frozen=True)
class Stuck:
    """A thread that the truth says is stuck. Record and context are None where it waits without an exception."""

    pid: int
    tid: int
    record: int | None
    context: int | None


@dataclass(frozen=True)
class Answer:
    """What a survey of one process said: rows by TID, and warnings."""

    rows: dict[int, Finding]
    warnings: tuple[ReportWarning, ...]


class Subject:
    """An opened dump."""

    def __init__(self, name: str, machine: Machine, stuck: tuple[Stuck, ...]) -> None:
        self.name = name
        self.machine = machine
        self.stuck = stuck
        self.reader = ProcessReader(machine)
        self._items = {int(item.UniqueProcessId): item for item in machine.processes()}

    @property
    def pids(self) -> tuple[int, ...]:
        """All processes."""
        return tuple(self._items)

    def process(self, pid: int) -> Process | None:
        """Open a process."""
        return self.reader.open(self._items[pid])

    def answer(self, pid: int, tids: Collection[int] = ()) -> Answer:
        """Survey one process, and of it the given threads, or all."""
        with mock.patch.object(self.machine, "processes", side_effect=lambda: iter([self._items[pid]])):
            survey = Survey(self.machine, Selection(pids={pid}, tids=tids))
            survey._reader = self.reader  # keeps what it knows of the kernel
            rows = {finding.thread.tid: finding for finding in survey.findings()}
        unexamined = [ReportWarning(WarningCode.PROCESS, one.reason, one.pid) for one in survey.record.unexamined]
        return Answer(rows, (*survey.record.warnings, *unexamined))

    def arch(self, process: Process) -> str:
        """Return `x64`, `x86` or `wow64`."""
        return "wow64" if process.is_wow64 else "x86" if Side.X86 in process.sides else "x64"


def forged_names() -> list[str]:
    """Return the cases, and those again whose symbol files can be withheld."""
    return [name for case in builders() for name in (case, case + BY_EXPORTS)]


def capture_names(captures: Path) -> list[str]:
    """Return the captures that `make test-live` left in `captures`."""
    return sorted(path.parent.name for path in captures.glob("*/truth.json"))


def _case(name: str) -> Case:
    case = builders()[name.removesuffix(BY_EXPORTS)][0]()
    if name.endswith(BY_EXPORTS):
        case.images = []
    return case


@contextlib.contextmanager
def forged(name: str) -> Iterator[Subject]:
    """Forge a case and open it."""
    case = _case(name)
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        forge(case, out)
        hanging = tuple(Stuck(pid, tid, None, None) for pid, tid in case.truth.hanging)
        stuck = tuple(Stuck(one.pid, one.tid, one.record, one.context or None) for one in case.truth.stuck)
        with _opened(name, out, (*stuck, *hanging)) as subject:
            yield subject


@contextlib.contextmanager
def live(folder: Path) -> Iterator[Subject]:
    """Open a capture that `make test-live` made."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    stuck = tuple(
        Stuck(one["pid"], one["tid"], int(one["record"], 16), int(one["context"], 16)) for one in truth["stuck"]
    )
    leaving = tuple(Stuck(truth["pid"], tid, None, None) for tid in truth["shutting_down"])
    with _opened(folder.name, folder, (*stuck, *leaving)) as subject:
        yield subject


@contextlib.contextmanager
def _opened(name: str, folder: Path, stuck: tuple[Stuck, ...]) -> Iterator[Subject]:
    symbols = [folder / "isf", CHECKOUT / "symbols"]
    with throwstack.open(folder / "MEMORY.DMP", symbols=symbols, symbol_path="", image_path="", offline=True) as dump:
        yield Subject(name, dump._machine, stuck)


def opened(name: str, captures: Path) -> contextlib.AbstractContextManager[Subject]:
    """Open the dump called `name`: a capture if there is one of that name, else a case."""
    return live(captures / name) if (captures / name / "truth.json").exists() else forged(name)
