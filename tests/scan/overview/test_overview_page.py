# SPDX-License-Identifier: Apache-2.0
"""The page over all dumps as a text; tests/browser opens it."""

from __future__ import annotations

import json
import re

from tests.scan.made_records import made_crash, made_record
from throwstack.scan.overview.crash_groups import CrashGroups
from throwstack.scan.overview.overview_page import overview_page

HOSTILE = "</script><script>alert(1)</script><!-- & \u2028"


def page_of(*records) -> str:
    groups = CrashGroups()
    assert all(True for _ in groups.collected(records))
    return overview_page(groups.as_json(), version="0.1")


def test_the_values_are_in_the_page():
    page = page_of(made_record("/dumps/a.dmp", made_crash()))
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert json.loads(data)["groups"][0]["signature"] == "app!main"
    assert "<h1>1 stuck thread in 1 dump</h1>" in page


def test_no_text_of_a_dump_leaves_the_element_that_it_is_in():
    page = page_of(made_record(HOSTILE, made_crash(HOSTILE, frames=(HOSTILE,))))
    assert page.count("<script") == 2
    assert "alert(1)</script>" not in page
    assert "<!--" not in page
    (data,) = re.findall(r'id="data">(.*?)</script>', page)
    assert json.loads(data)["groups"][0]["signature"] == HOSTILE.replace("\u2028", r"\u2028")


def test_the_page_allows_its_own_script_and_style_alone():
    page = page_of()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src &#39;none&#39;; style-src &#39;sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"(src|href)=|https?:", page.replace("http://www.w3.org/2000/svg", ""))
