# SPDX-License-Identifier: Apache-2.0
"""Decorated names of public symbols, by the machine of the image."""

from __future__ import annotations

import pytest

from tests.support.pdb_writer import X64, X86
from throwstack.pdb.plain_names import decorated_beginnings, decorated_names, plain_name


@pytest.mark.parametrize(
    ("symbol", "machine", "shown"),
    [
        ("_main", X86, "main"),
        ("__except_handler3", X86, "_except_handler3"),
        ("_RaiseException@16", X86, "RaiseException"),
        ("@_EH4_CallFilterFunc@8", X86, "_EH4_CallFilterFunc"),
        ("_Zoo", X86, "Zoo"),
        ("__ZN4shop5priceEi", X86, "shop::price"),
        ("@ILT+5(_main)", X86, "ILT+5(_main)"),
        ("?f@A@@QAEXH@Z", X86, "A::f"),
        ("_invoke_watson", X64, "_invoke_watson"),
        ("__report_gsfailure", X64, "__report_gsfailure"),
        ("_ZN4shop5priceEi", X64, "shop::price"),
        ("_RNvCs1234_7mycrate3foo", X64, "mycrate::foo"),
        ("?f@A@@QEAAXH@Z", X64, "A::f"),
        ("dot@@32", X64, "dot"),
        ("dot@@32", X86, "dot"),
        ("_", X86, "_"),
        ("__", X86, "_"),
    ],
)
def test_a_name_is_shown_as_debuggers_do(symbol, machine, shown):
    assert plain_name(symbol, machine) == shown


def test_the_names_that_a_function_may_have():
    assert {"_Sleep@4", "@Sleep@4", "_Sleep", "Sleep"} <= set(decorated_names("Sleep", X86))
    assert list(decorated_names("_invoke_watson", X64)) == ["_invoke_watson"]


@pytest.mark.parametrize(
    ("name", "decorated"),
    [
        ("A::f", "?f@A@@QAEXH@Z"),
        ("n::A::f", "?f@A@n@@QAEXH@Z"),
        ("n::A::A", "??0A@n@@QAE@XZ"),
        ("n::A::~A", "??1A@n@@QAE@XZ"),
        ("shop::price", "_ZN4shop5priceEi"),
        ("shop::Cart::Cart", "_ZN4shop4CartC1Ev"),
        ("A<int>::f", "?f@?$A@H@@QAEXXZ"),
        ("n::A<B<int> >::A<B<int> >", "??0?$A@V?$B@H@@@n@@QAE@XZ"),
        ("A<int>::~A<int>", "??1?$A@H@@QAE@XZ"),
        ("std::find<int>", "??$find@H@std@@YAXXZ"),
        ("A::operator[]", "??AA@@QAEHH@Z"),
        ("operator new", "??2@YAPAXI@Z"),
        ("A::`vector deleting destructor'", "??_EA@@UAEPAXI@Z"),
    ],
)
def test_how_the_decorated_names_of_a_function_begin(name, decorated):
    assert decorated.encode().startswith(decorated_beginnings(name))


@pytest.mark.parametrize("name", ["main", "", "::", "f(", "A::", "A::f(int)", "A::1"])
def test_no_beginning_of_a_name_that_is_not_plain(name):
    assert decorated_beginnings(name) == ()
