# SPDX-License-Identifier: Apache-2.0
"""Counts how many pages of a process can be read, by where each page was found or why it is absent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from throwstack.pages.page_origin import PageOrigin

Routes = Mapping[PageOrigin, int]
"""Number of pages for each `PageOrigin`, which says where pages were found or why they are absent."""


@dataclass(frozen=True, slots=True)
class ProcessCoverage:
    """How many pages of a process can be read, among its threads' stacks and a sample of the pages of each image.

    `pid` and `name` are those of the process, and `threads` is the number of its threads. `stacks` and `images` are the
    numbers of pages by origin. `problems` say what went wrong.
    """

    pid: int
    name: str
    threads: int
    stacks: Routes
    images: Routes
    problems: tuple[str, ...] = ()
    nameless: tuple[str, ...] = ()
    """Modules whose exports cannot be read, although stuck threads wait in them."""


def readable(routes: Routes) -> tuple[int, int]:
    """Return the number of pages that can be read, and the number of all pages."""
    return sum(count for origin, count in routes.items() if origin.is_present), sum(routes.values())


def total(parts: Iterable[Routes]) -> dict[PageOrigin, int]:
    """Return the number of pages for each origin, added up over `parts`."""
    found: dict[PageOrigin, int] = {}
    for routes in parts:
        for origin, count in routes.items():
            found[origin] = found.get(origin, 0) + count
    return found
