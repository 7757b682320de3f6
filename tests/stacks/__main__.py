# SPDX-License-Identifier: Apache-2.0
"""Prints what comes of published stacks: `python -m tests.stacks [--walks] tests/stacks/NAME.txt ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.forge.stacks import StackConflict
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


def report(path: Path, *, is_only: bool, has_walks: bool) -> tuple[list[str], bool]:
    """Return the outcomes of the stack in this file, in both modes, and whether they are as the file says.

    `is_only`: what came out is listed also where it is as written; `has_walks`: also the walked frames.
    """
    stack = read_stack(path)
    laid = LaidOut(stack)
    lines, is_right = [], True
    for mode in MODES:
        outcome = laid.outcome(mode)
        different = differences(stack, mode, outcome)
        is_right &= bool(different) == bool(stack.expected[mode].xfail)
        lines.append(f"== {stack.name}, {mode}: {'not as written' if different else 'as written'}")
        lines += [f"   differs: {one}" for one in different]
        if different or is_only:
            lines += [f"   {line}" for line in described(outcome)]
        if has_walks:
            lines += [f"      {line}" for line in _walked(laid, mode)]
    return lines, is_right


def _walked(laid: LaidOut, mode: str) -> Iterator[str]:
    target = laid.target(mode)
    assert laid.thread.registers is not None
    walk = target.walk(laid.thread.registers, laid.bounds)
    for frame in walk.frames:
        yield f"{frame.sp:#x} {name_of(target.symbols, frame)} {frame.trust.value}"
    yield walk.end.in_words(walk.detail)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the outcomes, and return 1 if one is not as written (or is, although the file has `!xfail`).

    One line and status 2 end it if a file is missing, is none of a stack, or cannot be laid out (too many frames).
    """
    parser = argparse.ArgumentParser(prog="python -m tests.stacks", description="What comes of published stacks.")
    parser.add_argument("files", nargs="+", type=Path, help="stacks; tests/stacks/published.py says their form")
    parser.add_argument("--walks", action="store_true", help="print the walked frames, too")
    options = parser.parse_args(arguments)
    status = 0
    for path in options.files:
        try:
            lines, is_right = report(path, is_only=len(options.files) == 1, has_walks=options.walks)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        except StackConflict as error:
            parser.error(f"{path.name} cannot be laid out: {error}")
        sys.stdout.writelines(f"{line}\n" for line in lines)
        status = status if is_right else 1
    return status


if __name__ == "__main__":
    sys.exit(main())
