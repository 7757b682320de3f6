# SPDX-License-Identifier: Apache-2.0
"""Strings from a dump are escaped and shortened."""

from __future__ import annotations

import unicodedata
from subprocess import list2cmdline

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.core.memory import MemoryUnreadable, memory_of
from throwstack.core.text import ansi_at, decode_ansi, decode_wide, escape, in_quotes, wide_at, with_marked_quotes


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("C:\\Windows\\größe.txt", "C:\\Windows\\größe.txt"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\r\nb\tc\0", r"a\r\nb\tc\x00"),
        ("invoice\u202efdp.exe", r"invoice\u202efdp.exe"),
        ("zero\u200bwidth\ufeff\u2028", r"zero\u200bwidth\ufeff\u2028"),
        ("lsass\u3164\ufe0f\u034f\u2800", r"lsass\u3164\ufe0f\u034f\u2800"),
        ("\u6f22\u5b57 e\u0301", "\u6f22\u5b57 e\u0301"),
        ("\ud800 alone", r"\ud800 alone"),
        ("\U000e0041 tag", r"\U000e0041 tag"),
        ("no\xa0break", r"no\xa0break"),
    ],
)
def test_characters_that_a_terminal_would_obey_are_escaped(text: str, shown: str):
    assert escape(text) == shown


def test_length_is_bounded_and_a_cut_text_ends_in_an_ellipsis():
    assert escape("x" * 300, 10) == "x" * 10 + "…"
    assert escape("x" * 10, 10) == "x" * 10
    assert escape("\0" * 300, 10) == r"\x00\x00…"


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=400), st.integers(0, 300))
def test_escape_gives_only_printable_characters(text: str, limit: int):
    shown = escape(text, limit)
    assert len(shown) <= limit + 1
    assert all(unicodedata.category(character)[0] not in "CZ" or character == " " for character in shown)


def test_a_quotation_mark_in_a_message_cannot_be_taken_for_its_end():
    assert in_quotes("disk full") == '"disk full"'
    assert in_quotes(r"C:\data\a.txt") == r'"C:\data\a.txt"'
    assert in_quotes('no", HRESULT 0x80004005 E_FAIL') == r'"no\", HRESULT 0x80004005 E_FAIL"'
    assert in_quotes("C:\\data\\") == r'"C:\data\\"'
    assert with_marked_quotes('Shop.X "no", HRESULT 0x1') == r"Shop.X \"no\", HRESULT 0x1"


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text('\\"a '))
def test_quoted_text_is_that_of_a_command_line_of_windows(text: str):
    assert in_quotes(text + " ") == list2cmdline([text + " "])
    assert in_quotes(" " + text) == list2cmdline([" " + text])


def test_a_string_in_memory_ends_at_its_zero_or_at_the_limit():
    memory = memory_of({0x1000: b"plain\0rest", 0x2000: "größe\0rest".encode("utf-16-le")})
    assert ansi_at(memory, 0x1000) == "plain"
    assert wide_at(memory, 0x2000) == "größe"
    assert ansi_at(memory, 0x1000, 3) == "pla…"
    assert wide_at(memory, 0x2000, 3) == "grö…"


def test_string_that_runs_into_an_absent_page_is_shown_as_far_as_it_goes():
    memory = memory_of({0x1FFC: b"abcd", 0x3FFC: "ab".encode("utf-16-le")})
    assert ansi_at(memory, 0x1FFC) == "abcd…"
    assert wide_at(memory, 0x3FFC) == "ab…"
    with pytest.raises(MemoryUnreadable):
        ansi_at(memory, 0x2000)
    with pytest.raises(MemoryUnreadable):
        wide_at(memory, 0x4000)


def test_terminator_of_a_wide_string_is_a_whole_character():
    memory = memory_of({0x1000: b"\x00\x01\x01\x00\x00\x00"})
    assert wide_at(memory, 0x1000) == "Ā\\x01"


def test_bytes_without_a_code_page():
    assert decode_ansi("größe".encode()) == "größe"
    assert decode_ansi("größe".encode("cp1252")) == "größe"
    assert escape(decode_ansi(b"\x81\xff")) == r"\udc81ÿ"
    assert escape(decode_wide(b"\x00\xd8a\0x")) == r"\ud800a"
