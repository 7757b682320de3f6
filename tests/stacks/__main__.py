# SPDX-License-Identifier: Apache-2.0
"""Prints what comes of published stacks: `python -m tests.stacks [--walks] tests/stacks/NAME.txt ...`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
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


def report(arguments: list[str]) -> Iterator[str]:
    """Yield the outcomes of the stacks in these files, in both modes; with `--walks` also the walked frames."""
    paths = [Path(argument) for argument in arguments if argument != "--walks"]
    for path in paths:
        stack = read_stack(path)
        laid = LaidOut(stack)
        for mode in MODES:
            outcome = laid.outcome(mode)
            different = differences(stack, mode, outcome)
            yield f"== {stack.name}, {mode}: {'not as written' if different else 'as written'}"
            if different or len(paths) == 1:
                yield from (f"   {line}" for line in described(outcome))
            if "--walks" in arguments:
                yield from (f"      {line}" for line in _walked(laid, mode))


def _walked(laid: LaidOut, mode: str) -> Iterator[str]:
    target = laid.target(mode)
    assert laid.thread.registers is not None
    walk = target.walk(laid.thread.registers, laid.bounds)
    for frame in walk.frames:
        yield f"{frame.sp:#x} {name_of(target.symbols, frame)} {frame.trust.value}"
    yield f"{walk.end.value} {walk.detail}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in report(sys.argv[1:]))
