# SPDX-License-Identifier: Apache-2.0
"""How much of a process can be read, in pages, counted by where each page was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from throwstack.pages.page_origin import PageOrigin

Routes = Mapping[PageOrigin, int]
"""Number of pages by the origin of the page, which is also the reason if it cannot be read."""


@dataclass(frozen=True, slots=True)
class ProcessCoverage:
    """How many pages of a process can be read: all of its threads' stacks, and a sample of each image's pages."""

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
    """Return the sum of `parts`."""
    found: dict[PageOrigin, int] = {}
    for routes in parts:
        for origin, count in routes.items():
            found[origin] = found.get(origin, 0) + count
    return found
