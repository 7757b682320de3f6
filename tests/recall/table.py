# SPDX-License-Identifier: Apache-2.0
"""The table of what is left of stuck threads' rows under loss, and its place in docs/agreement.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from textwrap import wrap

from tests.recall.losses import Kind
from tests.recall.measure import Outcome, Result

TITLE = "## Recall under loss"
_HEAD = f"""{TITLE}

Made by `make recall`; do not edit. For each thread that is stuck in the forged dumps, named by symbol files and by
exports alone, and in the live captures: one thing is lost at a time, and the process is surveyed again.

- *page of …*: the page is gone from the process's memory. Only pages that the survey reads are counted, since no other
  page can change what it says. Stack and TEB are the thread's own; the other pages are shared by all threads.
- *page of a stack that its TEB does not name*: the TEB has the bounds of another stack, as where a program has fibers
  of its own, and a page of the thread's stack is gone.
- *innermost frame in private memory*: the code that the thread waits in is a copy outside all modules, and the frame
  pointer has been set to each outer frame and to 0.
- *return slot of zeros, of junk*: a return address on its stacks, blocked and throwing, was overwritten.

A thread counts as *row right* if its row has the exception of the truth without a remark; *row with doubt*: the row
says what is missing; *row of less*: another exception, or none, without a remark; *warning*: no row, but a warning that
names the process and, if the loss is of the thread, the thread. *Silent* is what must not be. *False* counts
rows of threads that are not stuck, and doubts about other threads than the one whose loss it is. *Others doubted* is
for losses of shared pages after which a warning, or a row with a remark, is about a thread that is not stuck: its stack
goes through the same page, and holds an address by which stuck threads are known.
"""
_FALSE, _DOUBTED = "false", "others doubted"
_ARCHITECTURES = ("x64", "x86", "wow64")


def section(outcomes: Iterable[Outcome], undamaged: int, extent: str = "") -> str:
    """Return the section.

    `undamaged` is the number of dumps that had no warning when nothing was lost. `extent` says what was taken, in a
    sentence.
    """
    counts: Counter[tuple[str, Kind | None, str]] = Counter()
    for outcome in outcomes:
        for kind in (outcome.kind, None):
            counts[outcome.arch, kind, outcome.result.value] += 1
            counts[outcome.arch, kind, _FALSE] += bool(outcome.false)
            counts[outcome.arch, kind, _DOUBTED] += bool(outcome.doubted)
    give = "1 dump gives its" if undamaged == 1 else f"{undamaged} dumps give their"
    told = f"Without a loss, {give} rows and no warning. {extent}".rstrip()
    lines = [_HEAD, *_table(counts), "", *wrap(told, 120)]
    return "\n".join(lines) + "\n"


def _table(counts: Counter[tuple[str, Kind | None, str]]) -> Iterator[str]:
    columns = [result.value for result in Result]
    titles = ["Arch", "Loss", "Tried", *(column.capitalize() for column in (*columns, _FALSE, _DOUBTED))]
    yield f"| {' | '.join(titles)} |"
    yield "| --- | --- |" + " --: |" * (len(columns) + 3)
    for arch in _ARCHITECTURES:
        for kind in (*Kind, None):
            found = [counts[arch, kind, column] for column in columns]
            if sum(found):
                title = "**all**" if kind is None else kind.value
                others = (counts[arch, kind, column] for column in (_FALSE, _DOUBTED))
                cells = (arch, title, sum(found), *found, *others)
                yield f"| {' | '.join(map(str, cells))} |"
