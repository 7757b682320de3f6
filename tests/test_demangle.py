# SPDX-License-Identifier: Apache-2.0
"""Names demangle to what the compilers' documentation says, and hostile names stay as they are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.demangle import itanium_type_name, type_name, undecorate


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (".?AV_com_error@@", "_com_error"),
        (".?AVruntime_error@std@@", "std::runtime_error"),
        (".?AUPoint@?A0x1234abcd@@", "`anonymous namespace'::Point"),
        (".?AV?$vector@HV?$allocator@H@std@@@std@@", "std::vector<int,std::allocator<int> >"),
        (".?AW4color@@", "color"),
        (
            ".?AV?$basic_string@_WU?$char_traits@_W@std@@V?$allocator@_W@2@@std@@",
            "std::basic_string<wchar_t,std::char_traits<wchar_t>,std::allocator<wchar_t> >",
        ),
        (".H", "int"),
        (".PAD", "char *"),
        (".PEBD", "char const *"),
        (".PEB_W", "wchar_t const *"),
        (".PAVCException@@", "CException *"),
    ],
)
def test_rtti_names(raw: str, name: str):
    assert type_name(raw) == name


@pytest.mark.parametrize("raw", ["", "_com_error", "rust_panic", ".?A", ".?AV\x1b@@", ".?AV" + "x" * 2000])
def test_what_is_no_rtti_name_stays_as_it_is(raw: str):
    assert type_name(raw) == raw


def test_function_and_itanium_names():
    assert undecorate("?terminate@@YAXXZ") == "terminate"
    assert undecorate("_ZN3foo3barEv") == "foo::bar"
    assert undecorate("main") == "main"
    assert itanium_type_name("St13runtime_error") == "std::runtime_error"
    assert itanium_type_name("i") == "int"
    assert itanium_type_name("\x1b") == ""


def test_name_that_stands_for_gigabytes_is_refused():
    bomb = "P6AXPAH" + "".join(f"P6AX{str(level) * 6}@Z" for level in range(9)) + "@Z"
    assert type_name(f".{bomb}") == f".{bomb}"
    assert undecorate(f"?f@@YAX{bomb}@Z") == f"?f@@YAX{bomb}@Z"


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text("?AV@$HPD0123ZQ_WXabS<>.", max_size=200))
def test_results_are_bounded(text: str):
    for name in (f".?AV{text}", f".P6AX{text}", f"?{text}", f"_Z{text}"):
        assert len(type_name(name)) + len(undecorate(name)) < 20_000_000
