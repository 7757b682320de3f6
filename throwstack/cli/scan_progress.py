# SPDX-License-Identifier: Apache-2.0
"""Progress of a scan on standard error: a bar where that is a terminal, else a line now and then, or lines of JSON."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from throwstack.cli import console
from throwstack.report.text import spelling

if TYPE_CHECKING:
    from throwstack.scan.run_scan import ScanCount

Watch = Callable[["ScanCount"], None]
_BETWEEN_LINES = 30.0
_BETWEEN_JSON = 1.0


@contextlib.contextmanager
def progress_display(*, is_quiet: bool, as_json: bool) -> Iterator[Watch]:
    """Give the function that is called with the count of a scan whenever it changes."""
    if is_quiet:
        yield lambda _: None
    elif as_json:
        yield _Lines(_BETWEEN_JSON, _as_json).watch
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bar() as watch:
            yield watch
    else:
        yield _Lines(_BETWEEN_LINES, _as_text).watch


class _Lines:
    """Writes a line at the begin, at the end, and between them when some time has passed."""

    def __init__(self, between: float, text: Callable[[ScanCount, float], str]) -> None:
        self._between = between
        self._text = text
        self._begun = self._said = time.monotonic()

    def watch(self, count: ScanCount) -> None:
        now = time.monotonic()
        is_end = count.before + count.done == count.total
        if is_end or not count.done or now - self._said >= self._between:
            self._said = now
            console.say(self._text(count, now - self._begun))


def _as_json(count: ScanCount, seconds: float) -> str:
    rate = count.done / seconds if seconds else 0.0
    left = count.total - count.before - count.done
    return json.dumps(
        {
            "total": count.total,
            "done_before": count.before,
            "done": count.done,
            "failed": count.failed,
            "crashes": count.crashes,
            "seconds": round(seconds, 1),
            "dumps_per_second": round(rate, 3),
            "seconds_left": round(left / rate, 1) if rate else None,
        }
    )


def _as_text(count: ScanCount, seconds: float) -> str:
    rate = count.done / seconds if seconds else 0.0
    left = count.total - count.before - count.done
    words = [f"{count.before + count.done:,} of {count.total:,} dumps"]
    if count.before and not count.done:
        words.append(f"{count.before:,} done before")
    if rate:
        words.append(f"{60 * rate:,.1f} a minute")
    if rate and left:
        words.append(f"{_duration(left / rate)} left")
    words.append(spelling.count(count.crashes, "crash", "crashes"))
    if count.failed:
        words.append(f"{count.failed:,} not examined")
    return ", ".join(words)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


@contextlib.contextmanager
def _bar() -> Iterator[Watch]:
    from rich.console import Console  # noqa: PLC0415 for terminals only
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

    begun = time.monotonic()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(None))  # the bar has what the text leaves
    with Progress(*columns, console=Console(stderr=True), expand=True) as shown:
        bar = shown.add_task("starting the workers", total=None)

        def watch(count: ScanCount) -> None:
            shown.update(
                bar,
                total=count.total,
                completed=count.before + count.done,
                description=_as_text(count, time.monotonic() - begun),
            )

        yield watch
