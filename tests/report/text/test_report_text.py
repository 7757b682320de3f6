# SPDX-License-Identifier: Apache-2.0
"""Which parts of a report belong together in its text."""

from __future__ import annotations

import re

from tests.support.made_reports import two_of_one_pid
from throwstack.report.text.report_text import lines_of


def test_a_crash_has_the_facts_of_its_own_process_where_two_have_the_same_pid():
    text = "\n".join(lines_of(two_of_one_pid()))
    assert re.findall(r"thread (\d) = [^:]*: crashed.*=\n|user (\w+)", text) == [
        ("4", ""),
        ("", "ONE"),
        ("8", ""),
        ("", "TWO"),
    ]
