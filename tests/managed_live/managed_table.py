# SPDX-License-Identifier: Apache-2.0
"""The table of the managed processes, and its place in docs/agreement.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.managed_live.managed_check import RESULT
from tests.managed_live.managed_fixtures import managed_fixtures
from tests.managed_live.runtimes import RUNTIMES

TITLE = "## .NET"
HEAD = f"""{TITLE}

Made by `make test-managed`; do not edit. Programs in C# (`tests/managed_live/programs`) crash under Wine in Microsoft's
own runtimes, and are looked at with `windows.unhandled`. The truth is what the runtime itself printed: types, messages
and frames of the exception and its inner ones. Every process also has threads that handled exceptions, and threads that
wait in catch and finally blocks: of these there must be no row. A stack overflow has
no message.
"""
COLUMNS = (
    "Runtime", "Version", "Processes", "Rows found", "Threads that only wait", "False rows", "Types", "Messages",
    "Frames",
)  # fmt: skip


def results(out: Path) -> list[dict[str, Any]]:
    """Return what came of the fixtures under `out`, in the order of the set."""
    paths = [out / fixture.name / RESULT for fixture in managed_fixtures()]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def section(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the section: a line for each runtime that ran, and which did not."""
    return "\n".join([HEAD, *_lines(found), ""])


def _lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"| --- | --- |{' --: |' * (len(COLUMNS) - 2)}"
    absent = []
    for runtime in RUNTIMES:
        own = [one for one in found if one["runtime"] == runtime.label]
        if not own:
            absent.append(f"{runtime.version} ({runtime.label})")
            continue
        keys = ("rows", "decoys", "false_rows", "exceptions", "types", "messages", "frames", "names")
        sums = {key: sum(one[key] for one in own) for key in keys}
        parts = (
            ("rows", len(own)),
            ("types", sums["exceptions"]),
            ("messages", sums["exceptions"]),
            ("names", sums["frames"]),
        )
        rows, types, messages, names = (f"{sums[key]} of {whole}" for key, whole in parts)
        cells = (len(own), rows, sums["decoys"], sums["false_rows"], types, messages, names)
        yield f"| {runtime.label} | {runtime.version} | {' | '.join(map(str, cells))} |"
    if absent:
        yield ""
        yield f"Did not run: {', '.join(absent)}."
