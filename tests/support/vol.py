# SPDX-License-Identifier: Apache-2.0
"""Runs `vol` as a user does: the plugins and symbols of this checkout, a forged dump, and what comes out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throwstack.core.guard import UNEXPECTED

CHECKOUT = Path(__file__).resolve().parents[2]
_CAUGHT = re.compile(rf"{UNEXPECTED} [A-Z]\w+(:|\b).*")
_MAIN = "import sys; from volatility3.cli import main; sys.argv[0] = 'vol'; main()"


@dataclass(frozen=True)
class Output:
    """What a run of `vol` printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of a run with `-r json`."""
        return json.loads(self.out)


def vol(
    forged: Path,
    plugin: str,
    *options: str,
    renderer: str | None = "json",
    dump: Path | None = None,
    isf: Path | None = None,
    more: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    is_offline: bool = True,
    may_fail: bool = False,
    is_quiet: bool = True,
    is_one_stream: bool = False,
) -> Output:
    """Run a plugin on the dump in the directory `forged`; `more` are options of `vol` itself.

    `isf` stands in for the symbol tables that came with the dump. What is kept from run to run is kept beside the dump.
    Without a `renderer`, `more` may name one. With `is_one_stream`, stderr goes where stdout goes.
    What the guard has caught is a defect of ours, unless the dump is such that something `may_fail`.
    """
    cache = forged / "cache"
    cache.mkdir(exist_ok=True)
    command = [
        *(
            sys.executable,
            "-c",
            _MAIN,
            *(("-q",) if is_quiet else ()),
            *(("--offline",) if is_offline else ()),
            "--cache-path",
            str(cache),
        ),
        *("-p", str(CHECKOUT / "plugins"), "-s", f"{isf or forged / 'isf'};{CHECKOUT / 'symbols'}"),
        *(("-r", renderer) if renderer else ()),
        *("-f", str(dump or forged / "MEMORY.DMP"), *more, plugin, *options),
    ]
    variables = {
        **os.environ,
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONUTF8": "1",
        "XDG_CACHE_HOME": str(cache),
        "LOCALAPPDATA": str(cache),
        **(environment or {}),
    }
    for name in {"_NT_SYMBOL_PATH", "_NT_EXECUTABLE_IMAGE_PATH"} - set(environment or ()):
        variables.pop(name, None)
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if is_one_stream else subprocess.PIPE,
        encoding="utf-8",
        check=False,
        env=variables,
        timeout=300,
    )
    errors = done.stderr or ""
    caught = _CAUGHT.search(errors + done.stdout)
    assert may_fail or caught is None, f"the guard has caught: {caught}"
    return Output(done.returncode, done.stdout, errors)
