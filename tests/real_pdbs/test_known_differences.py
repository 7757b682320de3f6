# SPDX-License-Identifier: Apache-2.0
"""The rules by which readers of PDBs are compared: each lets one difference through, and no other."""

from __future__ import annotations

import pytest

from tests.real_pdbs.known_differences import Context, Known, same_chain, same_function, same_source
from tests.real_pdbs.peer_frames import PeerFrame, bare_name

X86, X64 = 0x14C, 0x8664


def function(ours: str, theirs: str, machine: int = X64, names: tuple[str, ...] = ()) -> set[Known] | None:
    used: set[Known] = set()
    return used if same_function(ours, theirs, Context(machine, frozenset(names)), used) else None


@pytest.mark.parametrize(
    ("written", "bare"),
    [
        ("A::f(int, char const*) const", "A::f"),
        ("A::operator()(int)", "A::operator()"),
        ("A::operator()", "A::operator()"),
        ("f(int (*)(char))", "f"),
        ("std::vector<int (*)(char),int>::at", "std::vector<int (*)(char),int>::at"),
        ("`f'::`2'::<lambda_1>::operator()() const", "`f'::`2'::<lambda_1>::operator()"),
        ("A<B<int> >::f", "A<B<int>>::f"),
    ],
)
def test_a_bare_name_has_no_parameters(written, bare):
    assert bare_name(written) == bare


def test_an_underscore_may_be_missing_where_names_are_not_decorated():
    assert function("_LdrpInitialize", "LdrpInitialize") == {Known.UNDERSCORE}
    assert function("_LdrpInitialize", "LdrpInitialize", X86) is None
    assert function("LdrpInitialize", "_LdrpInitialize") is None


def test_a_folded_function_may_have_another_of_the_names_there():
    assert function("a", "b", names=("a", "b")) == {Known.FOLDED}
    assert function("a", "b", names=("a",)) is None
    assert function("c", "b", names=("a", "b")) is None


def test_a_decorated_name_of_x86_is_the_same_name_only_if_it_is_there():
    assert function("f", "_f@8", X86, ("f",)) == set()
    assert function("f", "_f@8", X86, ("_f",)) is None
    assert function("f", "_f", X64, ("f",)) is None


def test_a_class_that_the_other_reader_cannot_name_may_be_any():
    assert function("A::{ctor}", "<unimplemented type kind 0x1608>::{ctor}") == {Known.UNKNOWN_TYPE}
    assert function("A::{dtor}", "<unimplemented type kind 0x1608>::{ctor}") is None


def test_separators_of_paths_may_differ_and_markers_are_no_lines():
    used: set[Known] = set()
    assert same_source((r"d:\a\b.cpp", 3), ("d:/a/b.cpp", 3), used)
    assert used == {Known.SEPARATORS}
    assert not same_source(("a.cpp", 3), ("a.cpp", 4), used)
    assert not same_source(("a.cpp", 3), ("b.cpp", 3), used)
    assert not same_source(("", 0), ("b.cpp", 3), used)
    assert same_source(("a.cpp", 0), ("", 0), used)
    assert same_source(("a.cpp", 3), ("a.cpp", 0xF00F00), used)


def test_inlined_functions_may_be_missing_if_their_function_has_no_line():
    inlined, outer = PeerFrame("member", "a.h", 7), PeerFrame("A::~A", "", 0)
    context, used = Context(X64, frozenset()), set()
    assert same_chain((inlined, outer), (outer,), context, used)
    assert used == {Known.NO_OWN_LINES}
    with_line = PeerFrame("A::~A", "a.cpp", 9)
    assert not same_chain((inlined, with_line), (with_line,), context, set())
    assert not same_chain((outer,), (inlined, outer), context, set())
