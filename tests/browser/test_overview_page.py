# SPDX-License-Identifier: Apache-2.0
"""The page over all dumps of a scan in a browser: it filters, sorts, unfolds, and is quick with 5,000 rows."""

from __future__ import annotations

import statistics
import time

import pytest

from tests.browser import page_checks
from tests.scan.made_records import made_crash, made_record
from tests.support.made_reports import ATTACKS
from throwstack.scan.dump_record import DumpOutcome, DumpRecord
from throwstack.scan.overview.crash_groups import CrashGroups
from throwstack.scan.overview.overview_page import overview_page

ROWS = 5_000
OPEN_SECONDS, FILTER_SECONDS = 3.0, 0.2


def page_of(*records: DumpRecord) -> str:
    groups = CrashGroups()
    assert all(True for _ in groups.collected(records))
    return overview_page(groups.as_json())


def signatures(page) -> list[str]:
    return [button.text for button in page.all("#groups .open")]


def filter_by(page, words: str) -> None:
    field = page.find("#filter")
    field.clear()
    field.send_keys(words)


@pytest.fixture
def page(open_page):
    return open_page(
        page_of(
            made_record("/web/a.dmp", made_crash(), made_crash("app!parse"), day="2026-01-02", machine="WEB-07"),
            made_record("/web/b.dmp", made_crash(), day="2026-02-03"),
            made_record("/sql/c.dmp", made_crash("sql!commit", frames=("sql!commit+0x1", "sql!main+0x2"))),
            made_record("/sql/d.dmp", warnings=[{"code": "stack", "text": "a stack cannot be read"}]),
            DumpRecord("/sql/notes.txt", "k", DumpOutcome.NO_MEMORY_IMAGE, reason="this is text"),
        )
    )


def test_groups_with_most_crashes_are_first(page):
    assert page.driver.title == "4 stuck threads in 5 dumps"
    assert signatures(page) == ["app!main", "app!parse", "sql!commit"]
    row = page.find("#groups tbody tr").text
    assert "ACCESS_VIOLATION reading 0x0" in row
    assert "2026-01-02 2026-02-03" in row
    assert page.find("#matching").text == "3 signatures, 4 threads"
    assert len(page.all("#groups tbody tr:first-child .spark rect")) == 2


def test_a_filter_takes_all_words_and_paths_of_dumps(page):
    filter_by(page, "SQL commit")
    assert signatures(page) == ["sql!commit"]
    filter_by(page, "/web/b.dmp")
    assert signatures(page) == ["app!main"]
    filter_by(page, "web-07")
    assert signatures(page) == ["app!main", "app!parse"]
    filter_by(page, "nothing like that")
    assert page.find("#matching").text == "0 signatures, 0 threads"


def test_columns_sort_both_ways(page):
    page.find("[data-sort=signature]").click()
    assert signatures(page) == ["app!main", "app!parse", "sql!commit"]
    page.find("[data-sort=signature]").click()
    assert signatures(page) == ["sql!commit", "app!parse", "app!main"]
    assert page.find("th:has([data-sort=signature])").get_attribute("aria-sort") == "descending"
    page.find("[data-sort=last]").click()
    assert signatures(page)[0] == "sql!commit"


def test_a_group_opens_its_stacks_and_its_dumps(page):
    page.all("#groups .open")[2].click()
    assert page.find(".opened pre").text == "sql!commit+0x1\nsql!main+0x2"
    assert "/sql/c.dmp" in page.find(".opened table").text
    page.all("#groups .open")[2].click()
    assert page.all(".opened") == []


def test_a_dump_shows_its_health(page):
    assert len(page.all("#dumps tbody tr")) == 5
    page.find("#not-whole").click()
    unwell = page.find("#dumps tbody").text
    assert "no-memory-image: this is text" in unwell
    page.find("#dumps summary").click()
    assert "a stack cannot be read" in page.find("#dumps tbody").text


@pytest.mark.parametrize("attack", ATTACKS)
def test_texts_of_a_dump_are_shown_and_do_nothing(open_page, attack: str):
    page = open_page(page_of(made_record(f"/{attack}", made_crash(attack, frames=(attack,)))))
    page.find("#groups .open").click()
    assert page.run("return document.querySelectorAll('script').length") == 2
    assert page.run("return document.querySelectorAll('main img, main iframe, main a, main svg svg').length") == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_has_enough_contrast(page, open_page, dark: bool):
    page = open_page(page_of(made_record("/a", made_crash())), dark=dark)
    page.find("#groups .open").click()
    assert page.run(page_checks.CONTRAST) == []


def test_five_thousand_rows_open_and_filter_quickly(browser, tmp_path):
    """The median of five: each crash a dump and a signature of its own."""
    html = page_of(*(made_record(f"/dumps/{n}/MEMORY.DMP", made_crash(f"app!f{n}")) for n in range(ROWS)))
    (tmp_path / "page.html").write_text(html, "utf-8")
    opened, filtered = [], []
    for number in range(5):
        begun = time.perf_counter()
        page = browser.open(tmp_path / "page.html")
        while page.run("return document.documentElement.dataset.ready") != "yes":
            assert time.perf_counter() - begun < 10 * OPEN_SECONDS
        opened.append(time.perf_counter() - begun)
        script = """
            const field = document.getElementById("filter");
            field.value = arguments[0];
            const begun = performance.now();
            field.dispatchEvent(new Event("input"));
            document.getElementById("groups").getBoundingClientRect();
            return (performance.now() - begun) / 1000;
        """
        filtered.append(max(page.run(script, words) for words in (f"f{number}", "app", "")))
        assert page.find("#matching").text == "5,000 signatures, 5,000 threads"
    assert statistics.median(opened) < OPEN_SECONDS
    assert statistics.median(filtered) < FILTER_SECONDS
