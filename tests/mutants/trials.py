# SPDX-License-Identifier: Apache-2.0
"""Tries mutants in processes that are forked once the tests are imported: each makes its change and runs its tests."""

from __future__ import annotations

import math
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from types import FunctionType
from typing import Any, NoReturn

import pytest

from tests.mutants.in_place import assignments, compiled, import_again_with, loaded_functions, swap_functions
from tests.mutants.lines import LineRecorder
from tests.mutants.mutate import Mutant, changed_tree, parse
from tests.support.vol import CHECKOUT

SECONDS_FOR_A_TEST = 10
"""How much longer than without a change a test may take. What ends no more is noticed."""

FAULT = 77
"""The status with which a process exits that could not make its change."""

QUIET = ("-x", "-q", "-p", "no:cacheprovider", "--no-header", "--capture=no")

Chosen = tuple[str, Mutant]
"""Path of a module, from the checkout on, and a mutant of it."""


class Trials:
    """A plugin of pytest that tries mutants instead of running the tests that were collected."""

    def __init__(
        self,
        chosen: Sequence[Chosen],
        mirrors: Callable[[str], list[str]],
        done: Callable[[str, Mutant, bool], None],
        *,
        jobs: int = 1,
        is_quick: bool = False,
        longest: float = math.inf,
    ) -> None:
        """Each of `chosen` is tried, `jobs` at a time. `done` is told of each, and whether a test noticed it.

        `mirrors` returns the test modules that are named after a module. If `is_quick` is true, no others run.
        Tests that take more than `longest` seconds are left out.
        """
        self._chosen, self._mirrors, self._done = chosen, mirrors, done
        self._jobs, self._is_quick, self._longest = jobs, is_quick, longest
        self._seconds: dict[str, float] = {}
        self._tests: dict[tuple[str, int], list[str]] = {}
        self._long: list[str] = []
        self._running: dict[int, Chosen] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Record which tests run which lines, then try one mutant after another."""
        if not self._is_quick:
            recorded = in_a_fork(lambda: self._recorded(session))
            if recorded is None:
                message = "the tests fail without a change"
                raise RuntimeError(message)
            self._seconds, self._tests, self._long = recorded
        functions = {path: loaded_functions(path) for path in {path for path, _ in self._chosen}}
        for path, mutant in self._chosen:
            while len(self._running) >= self._jobs:
                self._wait()
            child = os.fork()
            if not child:
                self._try(session, functions[path], path, mutant)
            self._running[child] = path, mutant
        while self._running:
            self._wait()
        return True

    def _recorded(self, session: pytest.Session) -> Any:
        """Return what a `LineRecorder` has recorded of the tests, or None if one fails."""
        recorder = LineRecorder({str(CHECKOUT / path) for path, _ in self._chosen})
        session.config.pluginmanager.register(recorder)
        is_good = run_items(session, session.items)
        return (recorder.seconds, dict(recorder.tests), recorder.long) if is_good else None

    def _items(self, session: pytest.Session, path: str, lines: Iterable[int]) -> list[pytest.Item]:
        """Return the tests that run one of `lines`, quickest first; none if these are run by an import."""
        if self._is_quick:
            mirrors = self._mirrors(path)
            return [item for item in session.items if str(item.path) in mirrors]
        names = {name for line in lines for name in self._tests.get((str(CHECKOUT / path), line), [])}
        names |= set(self._long if names else [])
        found = [item for item in session.items if item.nodeid in names and self._seconds[item.nodeid] <= self._longest]
        return sorted(found, key=lambda item: self._seconds[item.nodeid])

    def _try(self, session: pytest.Session, functions: list[FunctionType], path: str, mutant: Mutant) -> NoReturn:
        """Exit with status 0 if no test notices the mutant, and with `FAULT` if it cannot be tried."""
        status = FAULT
        try:
            quiet()
            text = (CHECKOUT / path).read_text("utf-8")
            tree = changed_tree(text, mutant)
            old, new = compiled(path, parse(text)), compiled(path, tree)
            lines, is_changed = {mutant.line}, not mutant.is_data and swap_functions(functions, old, new)
            again = assignments(path, parse(text), tree) if mutant.is_data else None
            status = 1
            if again is not None:
                for names in {id(each.__globals__): each.__globals__ for each in functions}.values():
                    exec(again.code, names)  # of each copy of the module that was imported
                lines, is_changed = set(again.lines), True
            items = self._items(session, path, lines)
            survives = (
                run_items(session, items, self._seconds) if is_changed and items else self._survives_import(path, new)
            )
            status = 0 if survives else 1
        finally:
            os._exit(status)

    def _survives_import(self, path: str, code: Any) -> bool:
        """Say whether no test notices `code` in the place of the module at `path` when all is imported again.

        The tests named after the module run first: to import these is quick.
        """
        import_again_with(path, code)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, 6 * SECONDS_FOR_A_TEST + 2 * sum(self._seconds.values()))
        everything = [name for name, seconds in self._seconds.items() if seconds <= self._longest]
        runs = [self._mirrors(path), [] if self._is_quick else everything]
        return all(pytest.main([*QUIET, *tests]) == 0 for tests in runs if tests)

    def _wait(self) -> None:
        child, status = os.wait()
        path, mutant = self._running.pop(child)
        if status == FAULT << 8:
            message = f"{path}:{mutant.line}: {mutant.change}: cannot be tried"
            raise RuntimeError(message)
        self._done(path, mutant, status != 0)


def run_items(session: pytest.Session, items: Sequence[pytest.Item], seconds: dict[str, float] | None = None) -> bool:
    """Run tests until one fails, and say whether none does. The process ends if one takes far longer than `seconds`."""
    for item, following in pairwise([*items, None]):
        if seconds is not None:
            limit = SECONDS_FOR_A_TEST + 3 * seconds.get(item.nodeid, 0)
            signal.setitimer(signal.ITIMER_PROF, limit)  # of the processor: others may be busy
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return False
    return True


def in_a_fork(function: Callable[[], Any]) -> Any:
    """Return what `function` returns in a forked process, so that what it imports and changes remains there."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            quiet()
            with os.fdopen(writer, "wb") as stream:
                pickle.dump(function(), stream)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    return pickle.loads(data)


def quiet() -> None:
    """Send what this process prints nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def try_mutants(tests: Iterable[str], trials: Trials) -> None:
    """Collect `tests` (paths) and let `trials` try its mutants with them.

    Raises RuntimeError if the tests cannot be imported, or fail without a change.
    """
    sys.stdout.flush()
    if pytest.main([*QUIET, "--no-summary", *tests], plugins=[trials]) not in {0, pytest.ExitCode.NO_TESTS_COLLECTED}:
        message = "the tests fail without a change, or cannot be collected"
        raise RuntimeError(message)
