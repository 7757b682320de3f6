# SPDX-License-Identifier: Apache-2.0
"""Runs the tests of one line after another with one change each, in processes that are forked for it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import pickle
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from tests.mutants.lines import record
from tests.mutants.mutate import Mutant, mutants, mutated
from tests.support.vol import CHECKOUT

SECONDS_FOR_A_MUTANT = 60
ROOMS = {
    "x86": ("throwstack/unwind/x86", ["tests/unwind/x86"]),
    "x64": ("throwstack/unwind/x64", ["tests/unwind/x64"]),
    "dispatch": ("throwstack/dispatch", ["tests/dispatch"]),
}
EQUIVALENT = Path(__file__).with_name("equivalent.txt")


@dataclass(frozen=True)
class Tried:
    """A mutant of the module at `path`, and whether a test noticed it."""

    path: str
    mutant: Mutant
    is_killed: bool

    def __str__(self) -> str:
        """Return place and change in a line, as `equivalent.txt` has them."""
        return described(self.path, self.mutant)


def described(path: str, mutant: Mutant) -> str:
    """Return the change in words that stay the same when lines are added above it."""
    return f"{path}: {mutant.change}"


def equivalents() -> frozenset[str]:
    """Return the changes that change nothing. The file has each on a line, below a line with the reason."""
    lines = EQUIVALENT.read_text("utf-8").splitlines()
    return frozenset(line.strip() for line in lines if line.startswith(" ") and line.strip())


def candidates(room: str, only: str = "") -> list[tuple[str, Mutant]]:
    """Return (path, mutant) of the mutants of a room that are not equivalent, of modules whose path has `only`."""
    known, found = equivalents(), []
    for path in sorted((CHECKOUT / ROOMS[room][0]).glob("*.py")):
        name = path.relative_to(CHECKOUT).as_posix()
        if only in name:
            found += [
                (name, mutant) for mutant in mutants(path.read_text("utf-8")) if described(name, mutant) not in known
            ]
    return found


def sample(found: Sequence[tuple[str, Mutant]], count: int, seed: int) -> list[tuple[str, Mutant]]:
    """Return `count` of the mutants in a fixed order; all of them for 0."""
    return random.Random(seed).sample(found, min(count, len(found))) if count else list(found)


class Lines:
    """The tests of each line of a room, recorded when they are first asked for, in a process of their own."""

    def __init__(self, room: str) -> None:
        """Record nothing yet."""
        self._room = room
        self._recorded: tuple[list[str], dict[tuple[str, int], list[str]], dict[str, float]] | None = None

    def tests(self, path: str, mutant: Mutant) -> list[str]:
        """Return the tests that run the mutant's line, quickest first."""
        if self._recorded is None:
            folder, arguments = ROOMS[self._room]
            files = [str(path) for path in (CHECKOUT / folder).glob("*.py")]
            self._recorded = _forked(lambda: _recorded(files, arguments))
        everything, tests, seconds = self._recorded
        places = everything if mutant.is_data else tests.get((str(CHECKOUT / path), mutant.line), [])
        return sorted(places, key=seconds.__getitem__)


def _recorded(
    files: list[str], arguments: list[str]
) -> tuple[list[str], dict[tuple[str, int], list[str]], dict[str, float]]:
    recorder = record(files, arguments)
    return list(recorder.seconds), dict(recorder.tests), recorder.seconds


def mirror(path: str) -> list[str]:
    """Return the test modules of the module at `path` by their names, that of the whole room last."""
    room, name = Path(path).parent, Path(path).name
    tests = CHECKOUT / "tests" / room.relative_to("throwstack")
    found = [tests / f"test_{stem}" for stem in (name, "unwinder.py", "search.py")]
    return [str(each) for each in dict.fromkeys(found) if each.exists()]


def try_all(room: str, chosen: Sequence[tuple[str, Mutant]], *, is_quick: bool = False) -> list[Tried]:
    """Run tests with each mutant in the place of its module: those named after the module, then those of its line.

    If `is_quick` is true, the tests of the line are left out: recording them takes minutes.
    """
    lines = Lines(room)
    tried = []
    for path, mutant in chosen:
        killed = is_killed(path, mutant, mirror(path))
        if not killed and not is_quick:
            tests = lines.tests(path, mutant)
            killed = is_killed(path, mutant, tests)
        tried.append(Tried(path, mutant, killed))
        print("killed  " if killed else "SURVIVED", f"{path}:{mutant.line}: {mutant.change}", flush=True)  # noqa: T201
    return tried


def is_killed(path: str, mutant: Mutant, tests: Sequence[str]) -> bool:
    """Say whether one of `tests` fails, or does not end, with the mutant in the place of the module at `path`.

    Without a test nothing notices it. (pytest without arguments would run all tests there are.)
    """
    if not tests:
        return False
    _load_what_tests_import()
    child = os.fork()
    if not child:
        _run_in_child(path, mutant, tests)
    _, status = os.waitpid(child, 0)
    return status != 0


def _run_in_child(path: str, mutant: Mutant, tests: Sequence[str]) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    signal.alarm(SECONDS_FOR_A_MUTANT)  # ends the process, and so kills the mutant
    status = 1
    try:
        text = mutated((CHECKOUT / path).read_text("utf-8"), mutant)
        code = compile(text, str(CHECKOUT / path), "exec")
        _forget_product()
        sys.meta_path.insert(0, _Replacing(path.removesuffix(".py").replace("/", "."), code))
        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]) != 0)
    finally:
        os._exit(status)


def _load_what_tests_import() -> None:
    """Import libraries before the fork, so that not each child pays for it."""
    for name in ("capstone", "hypothesis", "pefile", "unicorn"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _forget_product() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in {"throwstack", "tests"}]:
        del sys.modules[name]


class _Replacing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a code object."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name, self._code = name, code

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self, origin=self._code.co_filename) if name == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def _forked(function):
    """Return what `function` returns in a forked process, so that what it imports and changes stays there."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        with os.fdopen(writer, "wb") as stream:
            stream.write(pickle.dumps(function()))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    return pickle.loads(data)


def rates(tried: Sequence[Tried]) -> str:
    """Return how many mutants of each module, and of all, were killed."""
    by_path: dict[str, list[bool]] = {}
    for each in tried:
        by_path.setdefault(each.path, []).append(each.is_killed)
    lines = [f"{sum(found):4} of {len(found):4}  {path}" for path, found in sorted(by_path.items())]
    killed = sum(each.is_killed for each in tried)
    return "\n".join([*lines, f"{killed:4} of {len(tried):4}  killed: {killed / max(len(tried), 1):.1%}"])


def save(tried: Sequence[Tried], path: Path) -> None:
    """Write the survivors to a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([str(each) for each in tried if not each.is_killed], indent=1) + "\n", "utf-8")
