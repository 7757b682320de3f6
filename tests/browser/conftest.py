# SPDX-License-Identifier: Apache-2.0
"""The browser that the tests of pages share. Without one they are skipped, and say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.browser_setup import missing
from tests.browser.opened_page import Browser, OpenedPage, is_selenium_installed

OpenPage = Callable[..., OpenedPage]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return the browser, which all tests share; skip the test where there is none."""
    if not is_selenium_installed():
        pytest.skip("no browser test: selenium is not installed (`make test-browser` installs it)")
    if missing():
        pytest.skip(f"no browser test: {', '.join(missing())} not installed (`make test-browser` installs it)")
    with Browser() as started:
        yield started


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[OpenPage]:
    """Return a function that writes a page to a file and opens it. At the end nothing may have left the page."""
    opened: list[OpenedPage] = []

    def open_(html: str, **options: object) -> OpenedPage:
        path = tmp_path / f"page{len(opened)}.html"
        path.write_text(html, "utf-8")
        opened.append(browser.open(path, **options))
        return opened[-1]

    yield open_
    for page in opened[-1:]:
        page.check_nothing_went_wrong()
