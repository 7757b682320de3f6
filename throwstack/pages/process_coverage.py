# SPDX-License-Identifier: Apache-2.0
"""How much of a process can be read, counted in pages by the route on which they are found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from throwstack.pages.page_origin import PageOrigin

Routes = Mapping[PageOrigin, int]
"""Pages by the route on which they are found, or the reason for which they are not."""


@dataclass(frozen=True, slots=True)
class ProcessCoverage:
    """How much of a process can be read: pages of its threads' stacks, and of its images (a sample of each image's)."""

    pid: int
    name: str
    threads: int
    stacks: Routes
    images: Routes
    problems: tuple[str, ...] = ()
    nameless: tuple[str, ...] = ()
    """Modules in which stuck threads wait and whose exports cannot be read."""


def readable(routes: Routes) -> tuple[int, int]:
    """Return how many pages are readable, and how many there are."""
    return sum(count for origin, count in routes.items() if origin.is_present), sum(routes.values())


def total(parts: Iterable[Routes]) -> dict[PageOrigin, int]:
    """Return the sum of several."""
    found: dict[PageOrigin, int] = {}
    for routes in parts:
        for origin, count in routes.items():
            found[origin] = found.get(origin, 0) + count
    return found
