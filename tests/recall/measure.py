# SPDX-License-Identifier: Apache-2.0
"""Lays losses over opened dumps, surveys, and judges what is left of the rows of stuck threads."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from unittest import mock

from tests.recall.losses import Kind, Loss, changed, losses
from tests.recall.overlay import Overlay
from tests.recall.subjects import Answer, Stuck, Subject
from throwstack.core.guard import UNEXPECTED
from throwstack.volatility.objects.threads import Thread, ThreadReader
from throwstack.volatility.objects.trap_frame import TrapFrame
from throwstack.volatility.survey import Finding

_DAMAGED = "paged-peb"
"""The case that has a loss of its own, of which there is a warning."""
_PROCESSES = 3
"""How many processes of a dump losses are laid over. Cases that have more have the same threads again."""


class Result(Enum):
    """What a survey says of a stuck thread, best first."""

    RIGHT = "row right"
    """A row with the record and the CONTEXT of the truth, and no remark that it has not without the loss."""
    DOUBT = "row with doubt"
    """A row that says what is missing."""
    WRONG = "row of less"
    """A row with another exception than the truth's, or none, and without a remark."""
    WARNING = "warning"
    """No row, and a warning that names the process and, if the loss is of the thread, the thread."""
    SILENT = "silent"


@dataclass(frozen=True)
class Outcome:
    """What came of one loss for one stuck thread.

    `false` are rows of threads that are not stuck and, if the loss is one thread's, doubts about other threads.
    `doubted` are other threads that a warning or a row with a note is about when something is lost that all threads
    share: their stacks go through it too.
    """

    case: str
    arch: str
    kind: Kind
    what: str
    pid: int
    tid: int
    result: Result
    false: tuple[str, ...] = ()
    doubted: tuple[int, ...] = ()
    said: tuple[str, ...] = ()
    """The notes of the row that it has not without the loss; without a row, the warnings about it."""

    def __str__(self) -> str:
        """Return a line that says what was lost, and what came of it."""
        text = f"{self.case} PID {self.pid} TID {self.tid}: {self.kind.value} {self.what}"
        return "; ".join((f"{text}: {self.result.value}", *self.said, *self.false))


@dataclass(frozen=True)
class Sample:
    """How many losses of each kind to take of a process, chosen by `seed`; all if `most` is None."""

    most: int | None = None
    seed: int = 1
    kinds: Collection[Kind] = tuple(Kind)

    what: str = ""
    """Only losses whose description has this text."""

    def of(self, found: list[Loss], name: str) -> list[Loss]:
        """Return the chosen ones of a process's losses."""
        chosen: list[Loss] = []
        for kind in Kind:
            losses_of_kind = [loss for loss in found if loss.kind is kind and self.what in loss.what]
            if kind not in self.kinds:
                continue
            if self.most is not None and len(losses_of_kind) > self.most:
                losses_of_kind = random.Random(f"{self.seed} {name} {kind}").sample(losses_of_kind, self.most)
            chosen += losses_of_kind
        return chosen


class Measurement:
    """Losses laid over one opened dump."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._overlays: dict[int, Overlay] = {}

    def undamaged(self) -> list[str]:
        """Return what is wrong when nothing is lost: rows that are missing or too many, and any warning."""
        problems = []
        for pid in self._subject.pids:
            if self._subject.process(pid) is None:  # System has no user-mode memory
                continue
            answer = self._answer(pid)
            expected = {one.tid for one in self._subject.stuck if one.pid == pid}
            problems += [f"PID {pid} thread {tid}" for tid in expected.symmetric_difference(answer.rows)]
            problems += [
                f"{warning.pid} {warning.tid}: {warning.text}"
                for warning in answer.warnings
                if not self._subject.name.startswith(_DAMAGED)
            ]
        return [f"{self._subject.name}: {problem}" for problem in problems]

    def outcomes(self, sample: Sample) -> Iterator[Outcome]:
        """Yield what comes of each chosen loss, for each stuck thread that it is about."""
        for pid in sorted({one.pid for one in self._subject.stuck})[:_PROCESSES]:
            usual = self._answer(pid)
            process = self._subject.process(pid)
            assert process is not None
            arch = self._subject.arch(process)
            found = list(losses(self._subject, self._overlays[pid], pid, usual.rows))
            for loss in sample.of(found, f"{self._subject.name} {pid}"):
                answer = self._answer(pid, loss)
                for one in self._subject.stuck:
                    if one.pid == pid and loss.tid in {None, one.tid}:
                        said = _said(one, loss, usual, answer)
                        result = _judge(one, answer, said)
                        others = _others(self._subject.stuck, loss, usual, answer)
                        false = tuple(_false(self._subject.stuck, loss, others, answer))
                        doubted = () if loss.kind.is_of_thread else tuple(sorted(others))
                        what = loss.kind, loss.what, pid, one.tid
                        yield Outcome(self._subject.name, arch, *what, result, false, doubted, said)

    def _answer(self, pid: int, loss: Loss | None = None) -> Answer:
        overlay = self._overlays.setdefault(pid, Overlay())
        overlay.changes = {} if loss is None else loss.pages
        machine = self._subject.machine
        original, trap_frame = type(machine).process_pages, ThreadReader.trap_frame

        def of_thread(reader: ThreadReader, thread: Thread) -> TrapFrame | None:
            frame = trap_frame(reader, thread)
            if frame is None or loss is None or loss.registers is None or thread.tid != loss.tid:
                return frame
            return replace(frame, registers=changed(frame.registers, loss, machine.arch))

        with (
            mock.patch.object(machine, "process_pages", lambda *where: overlay.over(original(machine, *where))),
            mock.patch.object(ThreadReader, "trap_frame", of_thread),
        ):
            return self._subject.answer(pid)


def _said(stuck: Stuck, loss: Loss, usual: Answer, answer: Answer) -> tuple[str, ...]:
    """Return what is said of a stuck thread after the loss: new notes of its row; without a row, warnings about it."""
    row = answer.rows.get(stuck.tid)
    if row is None:
        about = {(stuck.pid, stuck.tid)} | (set() if loss.kind.is_of_thread else {(stuck.pid, None)})
        return tuple(one.text for one in answer.warnings if (one.pid, one.tid) in about)
    known = usual.rows[stuck.tid].stuck.notes if stuck.tid in usual.rows else ()
    return tuple(note for note in row.stuck.notes if note not in known)


def _judge(stuck: Stuck, answer: Answer, said: tuple[str, ...]) -> Result:
    row = answer.rows.get(stuck.tid)
    if row is None:
        return Result.WARNING if said else Result.SILENT
    if said:
        return Result.DOUBT
    return Result.RIGHT if _is_right(row, stuck) else Result.WRONG


def _is_right(row: Finding, stuck: Stuck) -> bool:
    exceptions = row.stuck.exceptions
    if stuck.context is None:
        return not exceptions
    return any(exception.context.address == stuck.context for exception in exceptions)  # a row begins with its cause


def _others(all_stuck: Collection[Stuck], loss: Loss, usual: Answer, answer: Answer) -> dict[int, str]:
    """Return, by TID, the doubts about threads that the loss is not about and that are not stuck.

    A doubt is a warning, or the first note of a row: what is lost may be what showed that a handler took an exception.
    """
    stuck = {one.tid for one in all_stuck if one.pid == loss.pid}
    concerned = {loss.tid} if loss.tid is not None else stuck
    doubted = {tid: row.stuck.notes[0] for tid, row in answer.rows.items() if tid not in stuck and row.stuck.notes}
    new = [warning for warning in answer.warnings if warning not in usual.warnings]
    doubted |= {one.tid: one.text for one in new if one.tid is not None}
    return {tid: text for tid, text in doubted.items() if tid not in concerned}


def _false(all_stuck: Collection[Stuck], loss: Loss, others: dict[int, str], answer: Answer) -> Iterator[str]:
    """Yield what must not be: rows of threads that are not stuck, doubts about others, and defects."""
    stuck = {one.tid for one in all_stuck if one.pid == loss.pid}
    yield from (f"a row of thread {tid}" for tid in answer.rows.keys() - stuck - others.keys())
    if loss.kind.is_of_thread:
        yield from (f"about thread {tid}: {text}" for tid, text in others.items())
    yield from (warning.text for warning in answer.warnings if UNEXPECTED in warning.text)
