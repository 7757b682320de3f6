# SPDX-License-Identifier: Apache-2.0
"""What a match of a rule must contain."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.stuck.frame_roles import families, rules_of
from throwstack.stuck.rule_literals import literals_of

PATTERNS = sorted({pattern for _, text in families() for _, pattern in rules_of(text)})


@pytest.mark.parametrize(
    ("pattern", "literals"),
    [
        ("abort", ("abort",)),
        ("_*purecall", ("purecall",)),
        (r"core::panicking::.*", ("core::panicking::",)),
        (r"Afx(Throw|AssertFailedLine)\w*", ("Throw", "AssertFailedLine")),
        (r"(ntdll|kernel32)!.*", ("ntdll", "kernel32")),
        (r"(std::)?terminate", ("terminate",)),
        (r"std::\w+::_X(ran|len)", ("std::",)),
        (r"_{2,3}(asan|msan)", ("asan", "msan")),
        (r"operator (new|delete)(\[\])?", ("operator ",)),
        (r"F+og", ("og",)),
        (r"Fo+g", ("Fo",)),
        (r"ab+cd", ("ab",)),
        (r"std::panicking::(?!try|catch_unwind).*", ("std::panicking::",)),
        (r"[eE]xit_?[pP]rocess", ("rocess",)),
        (r"\w+", ("",)),
        (r"abort|\w+", ("abort", "")),
    ],
)
def test_a_match_contains_one_of_the_literals(pattern: str, literals: tuple[str, ...]):
    assert literals_of(pattern) == literals


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_every_text_that_a_rule_matches_contains_one_of_its_literals(data: st.DataObject):
    pattern = data.draw(st.sampled_from(PATTERNS))
    text = data.draw(st.from_regex(pattern, fullmatch=True))
    assert any(literal in text for literal in literals_of(pattern))


def test_most_rules_have_something_that_a_match_must_contain():
    assert sum("" in literals_of(pattern) for pattern in PATTERNS) < len(PATTERNS) // 20
