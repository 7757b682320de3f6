# SPDX-License-Identifier: Apache-2.0
"""The words of the column "Found by", explained on the page."""

from __future__ import annotations

from tests.support.made_reports import frame
from throwstack.core.frames import Trust
from throwstack.names.symbols import SymbolKind
from throwstack.report.page.trust_words import explained


def test_the_words_that_occur_are_explained():
    frames = [frame(0, 0, trust=Trust.CONTEXT), frame(1, 0, trust=Trust.SCAN), frame(2, 0, symbols="export?")]
    words = dict(explained(frames))
    assert list(words) == ["context", "cfi", "scan", "pdb", "export", "?"]
    assert words["scan"].startswith("a guess")


def test_every_word_has_an_explanation():
    frames = [frame(0, 0, trust=trust) for trust in Trust] + [frame(0, 0, symbols=kind.value) for kind in SymbolKind]
    assert {word for word, _ in explained(frames)} == {member.value for member in (*Trust, *SymbolKind)}
