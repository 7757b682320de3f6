# SPDX-License-Identifier: Apache-2.0
"""The page of a report in a browser: it folds, copies, prints, can be read, and keeps to itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

import throwstack
from tests.browser import page_checks
from tests.conftest import Forge
from tests.support.made_reports import ATTACKS, crash, dump, hostile, stack
from throwstack.report.page.report_page import page_of

ENTER = "\ue007"
TAB = "\ue004"


@pytest.fixture(scope="module")
def reference(forged: Forge) -> str:
    """Return the page of the reference dump."""
    folder, _ = forged("ftp-2003")
    with throwstack.open(
        folder / "MEMORY.DMP", symbols=folder / "isf", symbol_path=folder / "pdb", offline=True
    ) as opened:
        return page_of(opened.report())


@pytest.fixture(scope="module")
def wow64(forged: Forge) -> str:
    folder, _ = forged("wow64-service")
    with throwstack.open(folder / "MEMORY.DMP", symbols=folder / "isf", offline=True) as opened:
        return page_of(opened.report())


def test_the_reference_page_says_what_happened(open_page, reference):
    page = open_page(reference)
    assert page.driver.title == "1 stuck thread in MEMORY.DMP"
    assert page.find("#c1 > h2").text == "iftpsvc.exe: crashed inside shutdown"
    said = page.find("#c1").text
    assert "C++ _com_error, HRESULT 0x80004003 E_POINTER (Invalid pointer)" in said
    assert "d:\\fts\\ftpsrvdata_pg\\src\\idbcommand.cpp @ 860" in said
    assert page.find("#c1-threw-4").text.split()[:6] == [
        *("04", "045bcc58", "033f9812"),
        *("00000000", "78158ed7", "045bf9b0"),
    ]


def test_stacks_fold_and_unfold_by_mouse_and_by_keyboard(open_page, reference):
    page = open_page(reference)
    row, summary = page.find("#c1-threw-4"), page.find("#c1 details.part > summary")
    assert row.is_displayed()
    summary.click()
    assert not row.is_displayed()
    page.press(ENTER)
    assert row.is_displayed()
    values = page.find("#c1-threw-6 .variables")
    assert not values.is_displayed()
    page.find("#c1-threw-6 summary").click()
    assert "_StatsQuery query {kind=0, rows=0} [ebp-0x418]" in " ".join(values.text.split())


def test_all_parts_fold_and_unfold_at_once(open_page, reference):
    page = open_page(reference)
    unfold, fold = page.all("[data-fold]")
    unfold.click()
    assert page.run(page_checks.FOLDED) == 0
    assert page.find("#c1-kernel-0").is_displayed()
    fold.click()
    assert not page.find("#c1-threw-0").is_displayed()
    assert page.find("#said").get_property("textContent") == "Folded"


@pytest.mark.parametrize(
    ("part", "begins", "ends"),
    [
        ("c1-windbg", ".process /r /p 8948fa08; .thread 89e3d418; ", ".cxr 045ba888; kb"),
        ("c1-signature", "ftpsrvdata_pg!PrintProviderError", "(cc3c5424)"),
        ("c1-threw-text", " # ChildEBP RetAddr  Args to Child\n00 045babb8 78158e89 e06d7363 00000001", "+0x34"),
    ],
)
def test_a_button_copies_a_text(open_page, reference, part: str, begins: str, ends: str):
    copied = open_page(reference).copied(part)
    assert copied.startswith(begins)
    assert copied.endswith(ends)


def test_a_copy_button_is_reached_and_pressed_by_keyboard(open_page, reference):
    page = open_page(reference)
    wanted = "Copy the WinDbg commands"
    for _ in range(40):
        page.press(TAB)
        if page.driver.switch_to.active_element.get_attribute("aria-label") == wanted:
            break
    page.press(ENTER)
    assert page.pasted().startswith(".process")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve `tmp_path` as a ticket system would, without TLS; yield its address, and the paths that are asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://ticket.example:{running.server_port}/page.html", asked
        running.shutdown()


def test_a_page_of_a_plain_http_server_copies_too_and_asks_for_nothing_else(browser, server, tmp_path, reference):
    """Browsers give the newer clipboard to pages of https and of files alone."""
    address, asked = server
    (tmp_path / "page.html").write_text(reference, "utf-8")
    page = browser.open(address)
    assert not page.run("return isSecureContext")
    assert page.copied("c1-signature") == "ftpsrvdata_pg!PrintProviderError (cc3c5424)"
    assert asked == ["/page.html"]
    assert page.console == []


def test_the_page_works_without_javascript(open_page, reference):
    page = open_page(reference, script=False)
    page.browser.command("Emulation.setScriptExecutionDisabled", value=False)
    assert page.run("return [...document.querySelectorAll('button')].every((each) => each.hidden)")
    text = page.find("#c1-threw-text")
    assert not text.is_displayed()
    page.find("#c1 .text > summary").click()
    assert "ftpsrvdata_pg!PrintProviderError+0x35" in text.text


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_has_enough_contrast(open_page, reference, dark: bool):
    page = open_page(reference, dark=dark)
    page.all("[data-fold]")[0].click()
    assert page.run(page_checks.CONTRAST) == []
    page = open_page(page_of(dump(crash(doubts=("a doubt",)), crash())), dark=dark)
    assert page.run(page_checks.CONTRAST) == []


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_as_wide_as_the_window(open_page, reference, wow64, width: int):
    for html in (reference, wow64, page_of(hostile("W" * 4000)), page_of(dump())):
        page = open_page(html, width=width)
        if page.all("[data-fold]"):
            page.all("[data-fold]")[0].click()
        assert page.run(page_checks.WIDER) <= 0


def test_headings_have_an_order_and_references_lead_somewhere(open_page, reference, wow64):
    for html in (reference, wow64, page_of(hostile("a")), page_of(dump())):
        page = open_page(html)
        levels = page.run(page_checks.HEADINGS)
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
        assert page.run(page_checks.LOST_REFERENCES) == []


def test_a_block_of_the_picture_leads_to_its_frame(open_page, reference):
    page = open_page(reference)
    page.run("document.querySelector('svg a[href=\"#c1-threw-4\"]').dispatchEvent(new MouseEvent('click'))")
    assert page.run("return document.querySelector(':target').id") == "c1-threw-4"


def test_on_paper_everything_is_unfolded_and_nothing_is_there_to_press(open_page, reference):
    page = open_page(reference, media="print")
    assert page.run(page_checks.FOLDED) > 0
    assert page.run(page_checks.UNSEEN_TEXT) == 0
    assert not any(button.is_displayed() for button in page.all("button"))


def test_what_printing_unfolds_is_folded_again(open_page, reference):
    page = open_page(reference)
    folded = page.run(page_checks.FOLDED)
    page.run("addEventListener('beforeprint', () => { window.unfolded = document.querySelectorAll('[open]').length })")
    opened = page.run("return document.querySelectorAll('[open]').length")
    page.browser.command("Page.printToPDF")
    assert page.run("return window.unfolded") == opened + folded
    assert page.run(page_checks.FOLDED) == folded


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_names_do_nothing_but_show(open_page, attack: str):
    page = open_page(page_of(hostile(attack)))
    page.all("[data-fold]")[0].click()
    assert page.run("return window.attacked") is None
    assert page.run("return document.querySelectorAll('img, base, form, iframe, object, link').length") == 0
    assert page.run("return document.scripts.length + document.querySelectorAll('style').length") == 2
    scripts = "return [...document.querySelectorAll('*')].flatMap((each) => [...each.attributes])"
    assert (
        page.run(f"{scripts}.filter((each) => /^(on|style)/.test(each.name) || /^\\s*javascript/i.test(each.value))")
        == []
    )
    shown = page.run("return document.body.innerText")
    assert not set(shown) & set("\u202e\u2066\u200b\x1b\x00\ud800\r")


def test_letters_of_a_call_site_are_in_the_order_of_the_name(open_page):
    """Without an override, the offset after a Hebrew or Arabic name is shown in the midst of it."""
    page = open_page(page_of(hostile("app!\u05e9\u05dc\u05d5\u05dd\u0645\u0631+0x10")))
    places = page.run("""
        const text = document.querySelector("#c1-threw-0 .site bdi").firstChild, range = document.createRange();
        return [...text.data].map((_, at) => {
          range.setStart(text, at); range.setEnd(text, at + 1);
          return range.getBoundingClientRect().left;
        });""")
    assert places == sorted(places)


def test_a_stack_of_10_000_frames_can_be_used(open_page):
    deep = crash(throwing=stack(10_000, base=0x1000000), blocked=stack(10_004, base=0x1000000))
    html = page_of(dump(deep))
    began = time.perf_counter()
    page = open_page(html)
    assert page.find("#c1-threw-0").is_displayed()
    assert page.find("#c1-threw-9999").is_displayed()
    chunk = page.find("#c1 .chunk")
    assert chunk.text.startswith("400 frames, 78 to 207")
    assert not page.find("#c1-threw-200").is_displayed()
    chunk.find_element("css selector", "summary").click()
    assert page.find("#c1-threw-200").is_displayed()
    page.all("[data-fold]")[1].click()
    page.all("[data-fold]")[0].click()
    assert page.run("return document.querySelector('svg').querySelectorAll('*').length") < 2_500
    assert len(page.copied("c1-threw-text").splitlines()) == 10_001
    assert time.perf_counter() - began < 30
