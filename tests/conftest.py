# SPDX-License-Identifier: Apache-2.0
"""Forged dumps, each made once a run; the marks of tests; and a watch over the guard.

The guard must have nothing to do on what we foresee. Every test is marked `dump` if it opens a whole dump, else `unit`;
`portable` too, if it runs on every system.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.forge.__main__ import forge, with_paging
from tests.forge.build import DumpKind
from tests.forge.cases import builders
from tests.forge.describe import Paging
from tests.forge.truth import Truth

Forge = Callable[..., tuple[Path, Truth]]

NEEDS_THIS_SYSTEM = ("browser", "fuzz", "install", "live", "managed_live", "peers", "real_pdbs", "scan")
"""Directories of tests that need fork, Wine, a shell or programs that not every system has; all others are portable."""

HAVE_DUMPS = ("browser", "dumps", "forge", "fuzz", "install", "live", "peers", "real_pdbs", "recall", "stacks")
"""Directories in which every test counts as one of a whole dump, or takes as long."""

TAKE_AS_LONG = (
    "test_benchmarks.py",
    "test_packaging.py",
    "test_command_line.py",
    "test_examiner.py",
    "test_run_scan.py",
    "test_scan_command.py",
    "test_emulated.py",
    "test_every_instruction.py",
    "test_hostile.py",
    "test_hostile_stacks.py",
)
"""Files of other directories that build packages, run programs, emulate every instruction or attack at length."""

DUMP_TOOLS = ("build", "forge", "open_dump", "vol")
"""Who imports one of these makes or opens whole dumps."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests: `pytest -m portable` runs on Linux, Windows and macOS, `pytest -m unit` takes half a minute."""
    for item in items:
        room = item.path.relative_to(Path(__file__).parent).parts[0]
        if room not in NEEDS_THIS_SYSTEM:
            item.add_marker(pytest.mark.portable)
        is_long = room in HAVE_DUMPS or item.path.name in TAKE_AS_LONG or _opens_dumps(item)
        item.add_marker(pytest.mark.dump if is_long else pytest.mark.unit)


def _opens_dumps(item: pytest.Item) -> bool:
    """Say whether a test asks for a forged dump, or its module has what makes or opens one."""
    module = item.getparent(pytest.Module)
    tools = (getattr(module.obj, name, None) for name in DUMP_TOOLS) if module is not None else ()
    made_by_us = any(callable(tool) and tool.__module__.startswith("tests.") for tool in tools)
    return made_by_us or "forged" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    """Return a function that forges a case, once for equal arguments: (directory, truth)."""
    made: dict[tuple[object, ...], tuple[Path, Truth]] = {}

    def make(
        case: str, *, kind: DumpKind = DumpKind.FULL, isf: Path | None = None, paging: Paging | None = None
    ) -> tuple[Path, Truth]:
        key = (case, kind, isf, paging)
        if key not in made:
            out = tmp_path_factory.mktemp(case)
            built = builders()[case][0]()
            if paging is not None:
                built.machine = with_paging(built.machine, paging)
            forge(built, out, isf=isf, kind=kind)
            made[key] = out, Truth.load(out / "truth.json")
        return made[key]

    return make


@pytest.fixture
def caught() -> Iterator[list[logging.LogRecord]]:
    """Return what the guard has caught that no code foresaw. A test that asks for this expects some."""
    with _caught() as records:
        yield records


@pytest.fixture(autouse=True)
def _nothing_unexpected(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which the guard has caught something: it hides defects of ours as well as those of dumps."""
    with _caught() as records:
        yield
    if records and "caught" not in request.fixturenames:
        pytest.fail(f"the guard has caught: {', '.join(record.getMessage() for record in records)}")


@contextlib.contextmanager
def _caught() -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, handler = logging.getLogger("throwstack.core.guard"), Keep()
    saved = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(saved)
