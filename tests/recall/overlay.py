# SPDX-License-Identifier: Apache-2.0
"""A process's memory with changes laid over it: pages that are gone, words that are others, pages that are new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from throwstack.core.memory import PAGE_SIZE
from throwstack.pages.page_origin import PageOrigin
from throwstack.pages.resolver import ResolvedPages


class Overlay:
    """The pages of one process, read from the dump once, and the changes of the loss that is being looked at."""

    def __init__(self) -> None:
        self.changes: dict[int, bytes | None] = {}
        self.read: set[int] = set()
        """Addresses of all pages that were asked for."""
        self._known: dict[int, bytes | None] = {}

    def page(self, address: int, original: Callable[[int], bytes | None]) -> bytes | None:
        """Return the page at `address`, changed or as `original` has it."""
        if address in self.changes:
            return self.changes[address]
        if address not in self._known:
            self._known[address] = original(address)
        if self._known[address] is not None:
            self.read.add(address)
        return self._known[address]

    def over(self, pages: ResolvedPages) -> _Changed:
        """Return `pages` with the changes."""
        return _Changed(pages, self)


class _Changed:
    """Stands in for a process's `ResolvedPages`."""

    def __init__(self, pages: ResolvedPages, overlay: Overlay) -> None:
        self._pages = pages
        self._overlay = overlay

    def page(self, address: int) -> bytes | None:
        return self._overlay.page(address, self._pages.page)

    def resolve(self, address: int, **options: Any) -> tuple[PageOrigin, bytes | None]:
        if address not in self._overlay.changes:
            return self._pages.resolve(address, **options)
        page = self._overlay.changes[address]
        return (PageOrigin.NOT_IN_DUMP if page is None else PageOrigin.VALID), page

    def origin(self, address: int) -> PageOrigin:
        return self.resolve(address & -PAGE_SIZE)[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pages, name)


def with_word(pages: dict[int, bytes | None], read: Callable[[int], bytes | None], at: int, data: bytes) -> None:
    """Put `data` at `at` into `pages`, on top of what is there or, if the page is not changed yet, of `read`'s page."""
    for index, byte in enumerate(data):
        page, offset = (at + index) & -PAGE_SIZE, (at + index) % PAGE_SIZE
        old = pages.get(page) or read(page) or bytes(PAGE_SIZE)
        pages[page] = old[:offset] + bytes([byte]) + old[offset + 1 :]
