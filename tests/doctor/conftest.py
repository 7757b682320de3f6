# SPDX-License-Identifier: Apache-2.0
"""The command `throwstack doctor`, run in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from throwstack.cli.main import main

Said = tuple[int, dict[str, Any]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]):
    """Return a function that runs the command with --json -: (exit status, report)."""

    def run(dump: Path, isf: Path | None = None, *options: str) -> Said:
        symbols = [] if isf is None else ["-s", str(isf)]
        status = main(["doctor", str(dump), "--json", "-", *symbols, *options])
        return status, json.loads(capsys.readouterr().out)

    return run
