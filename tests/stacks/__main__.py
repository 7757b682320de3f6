# SPDX-License-Identifier: Apache-2.0
"""Prints what comes of published stacks: `python -m tests.stacks [--walks] tests/stacks/NAME.txt ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.stacks.differences import differences
from tests.stacks.outcomes import LaidOut, Outcome
from tests.stacks.published import MODES, read_stack
from throwstack.names.frame_names import name_of


def described(outcome: Outcome) -> list[str]:
    """Return the lines that a stack's file would have if this outcome were right."""
    crash = outcome.crash
    if crash is None:
        return ["!no-row", *(f"# doubt: {doubt}" for doubt in outcome.doubts)]
    lines = [f"!verdict {crash.verdict.code.name}", f"# {crash.verdict.text}; in {crash.blocked_in}"]
    lines += [f"!exception {one.title}" for one in crash.exceptions] or ["!exception none"]
    lines += [f"!thrown-at {crash.thrown_at}", f"!signature {crash.signature}"]
    return [*lines, *(f"# doubt: {doubt}" for doubt in crash.doubts), *(f"# note: {note}" for note in crash.notes)]


def report(paths: Sequence[Path], *, has_walks: bool) -> Iterator[str]:
    """Yield the outcomes of the stacks in these files, in both modes; `has_walks`: also the walked frames."""
    for path in paths:
        stack = read_stack(path)
        laid = LaidOut(stack)
        for mode in MODES:
            outcome = laid.outcome(mode)
            different = differences(stack, mode, outcome)
            yield f"== {stack.name}, {mode}: {'not as written' if different else 'as written'}"
            if different or len(paths) == 1:
                yield from (f"   {line}" for line in described(outcome))
            if has_walks:
                yield from (f"      {line}" for line in _walked(laid, mode))


def _walked(laid: LaidOut, mode: str) -> Iterator[str]:
    target = laid.target(mode)
    assert laid.thread.registers is not None
    walk = target.walk(laid.thread.registers, laid.bounds)
    for frame in walk.frames:
        yield f"{frame.sp:#x} {name_of(target.symbols, frame)} {frame.trust.value}"
    yield f"{walk.end.value} {walk.detail}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the outcomes; end with one line and status 2 if a file is missing or is none of a stack."""
    parser = argparse.ArgumentParser(prog="python -m tests.stacks", description="What comes of published stacks.")
    parser.add_argument("files", nargs="+", type=Path, help="stacks; tests/stacks/published.py says their form")
    parser.add_argument("--walks", action="store_true", help="print the walked frames, too")
    options = parser.parse_args(arguments)
    try:
        for line in report(options.files, has_walks=options.walks):
            sys.stdout.write(f"{line}\n")
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
