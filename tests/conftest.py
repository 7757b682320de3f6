# SPDX-License-Identifier: Apache-2.0
"""Forged dumps, each made once a run; the mark of the tests that run on every system; and a watch over the guard.

The guard must have nothing to do on what we foresee.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.forge.__main__ import forge, with_paging
from tests.forge.build import DumpKind
from tests.forge.cases import builders
from tests.forge.describe import Paging
from tests.forge.truth import Truth

if find_spec("symbolic") is None:  # no wheels for Windows: PDBs are not read there
    collect_ignore = ["pdb/test_convert.py", "pdb/test_pdb_symbols.py", "test_symbol_options.py"]

Forge = Callable[..., tuple[Path, Truth]]

NEEDS_THIS_SYSTEM = ("fuzz", "install", "live", "peers")
"""Directories of tests that need fork, Wine, a shell or programs that not every system has; all others are portable."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the portable tests: `pytest -m portable` runs on Linux, Windows and macOS, without Wine."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] not in NEEDS_THIS_SYSTEM:
            item.add_marker(pytest.mark.portable)


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
