# SPDX-License-Identifier: Apache-2.0
"""A progress bar on standard error, where that is a terminal; elsewhere nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from throwstack.core.text import escape

_LONGEST = 60


@contextmanager
def progress_bar() -> Iterator[Callable[[float, str], None] | None]:
    """Show a bar until the `with` block ends, and give the function that moves it: it takes a percentage and a text.

    The function is None where standard error is no terminal, or one that cannot move its cursor (TERM=dumb).
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 takes a tenth of a second to load
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn  # noqa: PLC0415

    console = Console(stderr=True)
    if console.is_dumb_terminal:  # it cannot go back over a bar, and would keep an empty line of it
        yield None
        return
    text = TextColumn("{task.description}", markup=False)
    with Progress(BarColumn(), TaskProgressColumn(), text, console=console, transient=True) as bar:
        task = bar.add_task("", total=100.0)

        def show(share: float, said: str) -> None:
            bar.update(task, completed=share, description=escape(said, _LONGEST))

        yield show
