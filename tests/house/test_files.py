# SPDX-License-Identifier: Apache-2.0
"""Every source file says its licence in an SPDX line, and no Python file is longer than 400 lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.vol import CHECKOUT

ROOTS = ("benchmarks", "distribution", "examples", "plugins", "tests", "throwstack", "tools")
SOURCES = {".py", ".c", ".cpp", ".h", ".asm", ".s"}
MOST_LINES = 400
LONGER = {}


def sources() -> Iterator[tuple[str, Path]]:
    for root in ROOTS:
        for path in sorted((CHECKOUT / root).rglob("*")):
            if path.suffix in SOURCES:
                yield path.relative_to(CHECKOUT).as_posix(), path


@pytest.mark.parametrize("root", ["plugins", "tests", "throwstack"])
def test_there_are_files_to_look_at(root: str):
    assert any(name.startswith(f"{root}/") for name, _ in sources())


def test_every_source_file_says_its_licence_near_its_top():
    without = [name for name, path in sources() if "SPDX-License-Identifier: " not in path.read_text("utf-8")[:300]]
    assert without == []


def test_no_python_file_is_longer_than_400_lines():
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in sources() if path.suffix == ".py"}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}
