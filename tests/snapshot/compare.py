# SPDX-License-Identifier: Apache-2.0
"""Compares two snapshots, file by file."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

MOST_LINES_TO_ALIGN = 5000
"""difflib's time grows with the square of what differs."""


def differences(before: Path, after: Path, *, lines: int = 40) -> Iterator[str]:
    """Yield how two snapshots differ, at most so many lines a file; nothing where they are equal."""
    dumps = {root: {path.name for path in root.iterdir() if path.is_dir()} for root in (before, after)}
    for name in sorted(dumps[before] ^ dumps[after]):
        yield f"{name}: only {'before' if name in dumps[before] else 'after'}"
    both = dumps[before] & dumps[after]
    names = sorted({path.relative_to(root) for root in dumps for dump in both for path in (root / dump).iterdir()})
    for name in names:
        if not (after / name).exists():
            yield f"{name.as_posix()}: only before"
        elif not (before / name).exists():
            yield f"{name.as_posix()}: only after"
        else:
            yield from _file(name, _lines(before / name), _lines(after / name), lines)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _file(name: Path, before: list[str], after: list[str], most: int) -> Iterator[str]:
    if before == after:
        return
    found = _changed(before, after)
    yield f"{name.as_posix()}: {sum(line[0] in '+-' for line in found)} lines differ"
    yield from found[:most]
    if len(found) > most:
        yield f"... and {len(found) - most} more"


def _changed(before: list[str], after: list[str]) -> list[str]:
    """Return a unified diff; of long texts the lines that are gone and the lines that are new, not aligned."""
    if len(before) + len(after) <= MOST_LINES_TO_ALIGN:
        return list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
    gone, new = Counter(before) - Counter(after), Counter(after) - Counter(before)
    lines = [*(f"-{line}" for line in gone.elements()), *(f"+{line}" for line in new.elements())]
    return lines or ["+ the same lines in another order"]
