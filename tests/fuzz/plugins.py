# SPDX-License-Identifier: Apache-2.0
"""Attacks the plugins: an opened dump, a forked child for each mutant, and a judgement on what it said."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import select
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from tests.fuzz.answers import Answers, answers_of
from tests.fuzz.outcome import Outcome
from tests.fuzz.pages import Maker, Mutant
from tests.fuzz.scenes import PLUGINS, SCENES, SLOW, Scene, opened, plugin, remembered
from tests.fuzz.verdicts import Fault, limit_memory, limited_time

TIMES_SLOWER = 20
LEAST_SECONDS = 5.0
MORE_MEMORY = 400 << 20
_PATIENCE = 600.0
"""Seconds by the clock that a child may take however busy the machine is."""


@dataclass
class _Ready:
    scene: Scene
    maker: Maker
    usual: Answers


class Attack:
    """The scenes, opened, and what their plugins say when nothing is changed. Not portable: it forks."""

    def __init__(self, names: Sequence[str], seed: int) -> None:
        """Take the names of the cases; all if there are none."""
        self._names = list(names or [*SCENES, *(name for name in SCENES if name not in SLOW)])
        self._seed = seed
        self._plugins = {name: plugin(name) for name in PLUGINS}
        self._stack = contextlib.ExitStack()
        self._ready: dict[str, _Ready] = {}

    def __enter__(self) -> Attack:  # noqa: PYI034 - Self came with Python 3.11
        self._stack.enter_context(remembered())
        return self

    def _scene(self, name: str) -> _Ready:
        """Open a case when its first mutant comes; what others read before is no matter to it."""
        if name not in self._ready:
            scene = self._stack.enter_context(opened(name))
            answers_of(scene, self._plugins)
            scene.enter()
            usual = answers_of(scene, self._plugins)
            if usual.faults:
                message = f"{name}, unchanged: {usual.faults[0]}"
                raise AssertionError(message)
            self._ready[name] = _Ready(scene, Maker(scene), usual)
            gc.collect()
            gc.freeze()
        return self._ready[name]

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self) -> None:
        """Open all cases."""
        for name in self._names:
            self._scene(name)

    def finish(self) -> None:
        """A worker leaves nothing: the dumps are those of the process that forked it."""

    def describe(self, number: int) -> list[str]:
        """Return the changes of a mutant, in words."""
        return [str(change) for change in self._mutant(number)[1].changes]

    def _mutant(self, number: int) -> tuple[_Ready, Mutant]:
        ready = self._scene(self._names[number % len(self._names)])
        rng = random.Random(f"plugins {self._seed} {ready.scene.name} {number}")
        return ready, ready.maker.make(rng)

    def run(self, number: int) -> Outcome:
        """Run a mutant in a child; return what came of it."""
        ready, mutant = self._mutant(number)
        begin, end = os.pipe()
        child = os.fork()
        if not child:
            os.close(begin)
            try:
                outcome = _examine(ready, mutant, self._plugins)
                with os.fdopen(end, "wb") as out:
                    out.write(json.dumps(asdict(outcome)).encode("utf-8", "surrogatepass"))
            finally:
                os._exit(0)
        os.close(end)
        with os.fdopen(begin, "rb") as pipe:
            data = _read_all(pipe.fileno(), time.monotonic() + _PATIENCE)
        if data is None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        family = f"{mutant.category}"
        if data is None:
            outcome = Outcome(family, [Fault("hang", ready.scene.name, f"no end after {_PATIENCE} s")])
        elif not data:
            outcome = Outcome(family, [Fault("crash", ready.scene.name, f"the child ended with status {status:#x}")])
        else:
            outcome = Outcome.of(json.loads(data.decode("utf-8", "surrogatepass")))
        if outcome.faults or outcome.silent:
            outcome.changes = [f"case {ready.scene.name}", *(str(change) for change in mutant.changes)]
        return outcome


def _read_all(descriptor: int, deadline: float) -> bytes | None:
    """Return what comes through a pipe until its end, or None where that takes too long."""
    parts: list[bytes] = []
    while select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))[0]:
        part = os.read(descriptor, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return None


def _examine(ready: _Ready, mutant: Mutant, plugins: dict[str, object]) -> Outcome:
    """Run the plugins on the mutant and judge; only ever in a child."""
    limit_memory(MORE_MEMORY)
    ready.scene.enter()
    ready.scene.memory.changes = mutant.pages
    with limited_time(max(TIMES_SLOWER * ready.usual.seconds, LEAST_SECONDS)):
        answers = answers_of(ready.scene, plugins)
    faults, silent = [*answers.faults], []
    for kind, text, is_touched in _differences(ready, mutant, answers):
        if is_touched:
            silent.append(text)
        else:
            faults.append(Fault(kind, f"{mutant.category}: {text.split(':')[0]}", text))
    return Outcome(mutant.category, faults, silent, sorted(set(answers.swallowed)), answers.seconds)


def _differences(ready: _Ready, mutant: Mutant, answers: Answers) -> Iterator[tuple[str, str, bool]]:
    """Yield (kind, text, whether the process was touched) of rows that are lost or changed with no word about it.

    Of a touched process only the loss of a stuck thread counts: what else it says may well be another thing now.
    """
    usual, touched = ready.usual.rows, mutant.touched
    for key, rows in usual.items():
        name, pid, tid = key
        is_touched = touched is None or pid in touched
        found = answers.rows.get(key, [])
        if is_touched:
            is_elsewhere = any(other == name and thread == tid for other, _, thread in answers.rows)
            if name == "unhandled" and not is_elsewhere and not answers.names(pid):
                yield "silent", f"{name}: PID {pid} thread {tid} has no row", True
        elif not all(one in found for one in rows) and not answers.names(pid):
            kind = "changed" if found else "lost"
            yield kind, f"{name}: PID {pid} thread {tid} {kind}: {_first_difference(rows[0], found)}", False
    for name, pid, tid in answers.rows.keys() - usual.keys():
        known = {thread for other, process, thread in usual if other == "stackwalk" and process == pid}
        if touched is not None and pid not in touched and tid in known and not answers.names(pid):
            yield "changed", f"{name}: PID {pid} thread {tid} has rows that it should not have", False


def _first_difference(rows: Sequence[Sequence[str]], found: Sequence[Sequence[Sequence[str]]]) -> str:
    if not found:
        return "none"
    for index, row in enumerate(rows):
        other = found[0][index] if index < len(found[0]) else ()
        if tuple(row) != tuple(other):
            cells = [f"{a!r} is now {b!r}" for a, b in zip(row, other, strict=False) if a != b]
            return f"row {index}: " + ("; ".join(cells[:4]) or "gone")
    return "more rows"
