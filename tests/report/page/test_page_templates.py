# SPDX-License-Identifier: Apache-2.0
"""Templates to pages: escaping, the content security policy, and templates of other rooms."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from jinja2 import DictLoader, UndefinedError

from throwstack.report.page.page_templates import render

OTHER = DictLoader(
    {
        "index.html": '{% extends "base.html" %}{% block content %}<p title="{{ name }}">{{ name }}</p>{% endblock %}',
        "index.css": "p { color: red; }",
        "index.js": "window.index = true;",
    }
)


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_a_value_is_escaped_in_text_and_in_attributes():
    page = render("index.html", {"name": "\"><script>'"}, loader=OTHER)
    assert '<p title="&#34;&gt;&lt;script&gt;&#39;">&#34;&gt;&lt;script&gt;&#39;</p>' in page


def test_characters_that_cannot_be_seen_are_shown():
    page = render("index.html", {"name": "exe.\u202etxt\x1b\ud800"}, loader=OTHER)
    assert r'<p title="exe.\u202etxt\x1b\ud800">' in page


def test_a_value_is_of_limited_length():
    assert len(render("index.html", {"name": "N" * 1_000_000}, loader=OTHER)) < 50_000


def test_the_policy_allows_the_styles_and_scripts_of_the_page_and_nothing_else():
    page = render(
        "index.html",
        {"name": ""},
        loader=OTHER,
        styles=("page.css", "index.css"),
        scripts=("page.js", "index.js"),
    )
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts.pop("style-src").split() == [
        hashed(text) for text in re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    ]
    assert parts.pop("script-src").split() == [
        hashed(text) for text in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    ]
    assert "window.index = true;" in page
    assert parts == {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}


def test_line_ends_of_windows_do_not_change_what_a_browser_hashes():
    windows = DictLoader({"index.html": '{% extends "base.html" %}', "index.css": "p {\r\n}\r\n"})
    page = render("index.html", {}, loader=windows, styles=("index.css",), scripts=())
    assert "<style>p {\n}</style>" in page
    assert hashed("p {\n}").replace("'", "&#39;") in page


def test_a_value_that_is_not_there_is_an_error():
    with pytest.raises(UndefinedError):
        render("index.html", {}, loader=OTHER)
