# SPDX-License-Identifier: Apache-2.0
"""Gives a plugin's rows to Volatility: which columns there are, when rows come, and what is said if there are none.

A person sees the columns that fit a screen, or all with `--wide`. What other programs read has all columns, always.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from volatility3.framework import interfaces, renderers

from throwstack.core.text import escape
from throwstack.volatility.running_vol import RunningVol, running_vol
from throwstack.volatility.tables.columns import (
    Column,
    Row,
    Source_contra,
    headings,
    row,
    row_for_person,
)
from throwstack.volatility.tables.fit import fit

log = logging.getLogger(__name__)

_WIDTH = 160
_LEAST_WIDTH = 100
_MAX_SAID = 4096


@dataclass(frozen=True, slots=True)
class Output:
    """How the rows of a plugin's run are shown. `running` is None if no `vol` command renders them."""

    running: RunningVol | None
    is_wide: bool = False

    @property
    def is_for_person(self) -> bool:
        """Say whether a person reads the rows."""
        return self.running is not None and self.running.is_for_person

    @property
    def is_brief(self) -> bool:
        """Say whether only the columns that fit a screen are shown.

        A filter without a column looks at all columns, so that no row is missed for a column that is not shown.
        """
        if self.running is None or self.is_wide or not self.is_for_person:
            return False
        return all("," in one for one in self.running.filters)

    def columns(self, every: Sequence[Column[Source_contra]], shown: Sequence[str]) -> list[Column[Source_contra]]:
        """Return the columns of the table: `every` column, or those with the titles `shown`.

        The columns that filters name are added: the first of all that have the filter's word in their title.
        """
        if not self.is_brief:
            return list(every)
        titles = dict.fromkeys(shown)
        titles.update(dict.fromkeys(self._filtered([column.title for column in every])))
        by_title = {column.title: column for column in every}
        return [by_title[title] for title in titles if title in by_title]

    def _filtered(self, titles: Sequence[str]) -> Iterator[str]:
        for one in () if self.running is None else self.running.filters:
            word = one.lstrip("+-").partition(",")[0].lower()
            yield from [title for title in titles if word in title.lower()][:1]

    def row(self, columns: Sequence[Column[Source_contra]], source: Source_contra) -> Row:
        """Return the cells of the row that shows `source`."""
        return row_for_person(columns, source) if self.is_for_person else row(columns, source)

    def grid(
        self,
        columns: Sequence[Column[Source_contra]],
        rows: Iterator[tuple[int, Row]],
        why_empty: Callable[[], str],
    ) -> renderers.TreeGrid:
        """Return the table with `rows`, each with its depth in the tree.

        `why_empty` is called if there are no rows, and returns what is then said on stderr.
        """
        told = self._told(rows, why_empty)
        running = self.running
        is_fitted = self.is_brief and running is not None and running.renderer == "pretty"
        if is_fitted or (running is not None and running.progress_meets_rows):
            held = list(told)
            if is_fitted and running is not None and not running.filters:
                columns, held = fit(columns, held, _screen_width(), running.hidden)
            told = iter(held)
        return renderers.TreeGrid(headings(columns), told)

    def _told(self, rows: Iterator[tuple[int, Row]], why_empty: Callable[[], str]) -> Iterator[tuple[int, Row]]:
        is_empty = True
        for one in rows:
            is_empty = False
            yield one
        if self.running is not None and self.running.shows_progress:
            _say("")  # the progress line has no end
        if is_empty:
            reason = escape(why_empty(), _MAX_SAID)
            if self.running is None:
                log.info("%s", reason)
            else:
                _say(reason)


EVERY_COLUMN = Output(None)
"""The output for other code, which has all columns."""


def output_of(plugin: interfaces.plugins.PluginInterface) -> Output:
    """Return how the rows of `plugin`, which is running, are shown."""
    return Output(running_vol(plugin), is_wide=bool(plugin.config.get("wide")))


def _say(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def _screen_width() -> int:
    """Return the width that a table may have: the terminal's, if the rows go to one, within bounds."""
    try:
        terminal = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return _WIDTH
    return min(_WIDTH, max(_LEAST_WIDTH, terminal))
