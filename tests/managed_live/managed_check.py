# SPDX-License-Identifier: Apache-2.0
"""Runs `windows.unhandled` on the managed fixtures, and says whether what comes out is good enough.

Each capture is wrapped into a whole dump for as long as that takes. `result.json` in a fixture's directory keeps what
came of it, for the table of docs/agreement.md.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.live.hand_over import hand_over
from tests.managed_live.managed_compare import Comparison, compare, row_problems
from tests.managed_live.managed_fixtures import ManagedFixture, managed_fixtures
from tests.managed_live.runtimes import RUNTIMES, too_few
from tests.managed_live.saved_captures import load
from tests.managed_live.seen import seen_in
from tests.support.vol import vol

PLUGIN = "windows.unhandled"
RESULT = "result.json"


def check(out: Path, only: Sequence[str] = (), *, quick: bool = False) -> int:
    """Look at all fixtures under `out`, compare and print; return the exit code."""
    wanted = managed_fixtures(only, quick=quick)
    folders = _made(out, wanted)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(check_fixture, folders))
    problems = [f"{result['name']}: {problem}" for result in results for problem in result["problems"]]
    runtimes = sorted({fixture.runtime.label for fixture in wanted})
    lacking = too_few([result["runtime"] for result in results], len(runtimes))
    for line in (*problems, *([lacking] if lacking else [])):
        _say(line)
    ran = [label for label in (r.label for r in RUNTIMES) if any(result["runtime"] == label for result in results)]
    figures = f"{len(results)} processes on {', '.join(ran) or 'no runtime'}"
    _say(f"{figures}; {'NOT good enough' if problems or lacking else 'good'}")
    return 1 if problems or lacking else 0


def check_fixture(folder: Path) -> dict[str, Any]:
    """Look at one fixture; keep and return what came of it."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    captured = load(folder)
    with tempfile.TemporaryDirectory(dir=folder) as forged:
        hand_over(captured, captured.modules[0].name, Path(forged))
        output = vol(Path(forged), PLUGIN)
        seen, unseen = seen_in(Path(forged), truth["tid"])
    found = compare(captured, truth, seen)
    found.problems += unseen
    if output.status:
        last = next(reversed(output.err.strip().splitlines()), "nothing said")
        found.problems.append(f"{PLUGIN} failed: {last}")
    rows = output.rows if not output.status else []
    found.problems += row_problems(truth, rows)
    result = _result(truth, found, rows)
    (folder / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _say(f"{truth['name']}: {'; '.join(found.problems) or 'good'}")
    return result


def write_dumps(out: Path, only: Sequence[str] = ()) -> None:
    """Write the whole dumps of fixtures under `out` beside their captures, to be looked at by hand."""
    for folder in _made(out, managed_fixtures(only)):
        captured = load(folder)
        _say(str(hand_over(captured, captured.modules[0].name, folder)))


def _made(out: Path, wanted: Sequence[ManagedFixture]) -> list[Path]:
    folders = [out / fixture.name for fixture in wanted]
    return [folder for folder in folders if (folder / "truth.json").exists()]


def _result(truth: dict[str, Any], found: Comparison, rows: list[dict[str, Any]]) -> dict[str, Any]:
    own = [row for row in rows if row["TID"] == truth["tid"]]
    return {
        **{key: truth[key] for key in ("name", "runtime", "version", "arch", "scenario")},
        **asdict(found),
        "decoys": len(truth["decoys"]),
        "rows": len(own),
        "false_rows": len(rows) - len(own),
    }


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command's output
