# SPDX-License-Identifier: Apache-2.0
"""The table of what is left of the rows of .NET processes under loss, and its place in docs/agreement.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap

from tests.recall.managed_losses import ManagedKind
from tests.recall.managed_measure import ManagedOutcome, ManagedResult

TITLE = "## Recall under loss: .NET"
_HEAD = f"""{TITLE}

Made by `make recall-managed`; do not edit. Real .NET processes, captured by `make test-managed`: one page that the
report on the stuck thread reads is gone, and the process is surveyed and reported on again. What is compared with the
report without a loss, which agrees with the runtime's own console text, is all that is said of managed code: classes,
messages, HRESULTs, inner exceptions, recorded stacks, names and offsets of managed frames, frames of the walks.

A thread counts as *row right* if all of that is said, and nothing else; *a remark more*: all of it, and a remark, as
that exports of a DLL cannot be read; *less, with a reason*: something is missing, and the frame, the end of its stack
or the row says why; *warning*: no row, but a warning that names the process and, if the loss is of the thread, the
thread. What must not be: *another fact*: a class, name or message is another one; *silent*: something, or the row, is
missing without a word; *row lost*: a page of the runtime's costs the row. *False* counts rows of threads that are not
stuck.
"""


def section(outcomes: Sequence[ManagedOutcome], undamaged: int, extent: str = "") -> str:
    """Return the section; `undamaged` processes were told as the console tells them, `extent` says what was taken."""
    processes = "1 process gives its" if undamaged == 1 else f"{undamaged} processes give their"
    told = f"Without a loss, {processes} rows as the runtime printed them, and no warning. {extent}".rstrip()
    return "\n".join([_HEAD, *_table(outcomes), "", *wrap(told, 120)]) + "\n"


def _table(outcomes: Iterable[ManagedOutcome]) -> Iterator[str]:
    counts: Counter[tuple[str, ManagedKind | None, ManagedResult | None]] = Counter()
    for outcome in outcomes:
        for kind in (outcome.kind, None):
            counts[outcome.runtime, kind, outcome.result] += 1
            counts[outcome.runtime, kind, None] += bool(outcome.false)
    titles = ["Runtime", "Loss", "Tried", *(result.value.capitalize() for result in ManagedResult), "False"]
    yield f"| {' | '.join(titles)} |"
    yield f"| --- | --- |{' --: |' * (len(titles) - 2)}"
    for runtime in dict.fromkeys(runtime for runtime, _, _ in counts):
        for kind in (*ManagedKind, None):
            found = [counts[runtime, kind, result] for result in ManagedResult]
            if sum(found):
                title = "**all**" if kind is None else kind.value
                yield f"| {' | '.join(map(str, (runtime, title, sum(found), *found, counts[runtime, kind, None])))} |"
