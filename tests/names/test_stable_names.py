# SPDX-License-Identifier: Apache-2.0
"""Many spellings of one function have one stable name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.names.stable_names import plain_name


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("RaiseException", "RaiseException"),
        ("_UnhandledExceptionFilter@4", "UnhandledExceptionFilter"),
        ("@fastcall@8", "fastcall"),
        ("?terminate@@YAXXZ", "terminate"),
        ("?ExecuteResults@IDBCommand@@QAEXXZ", "IDBCommand::ExecuteResults"),
        ("_ZN3foo3barEv", "foo::bar"),
        ("void __cdecl ns::f<int,std::vector<int> >(int) const", "ns::f<T>"),
        ("std::vector<int>::operator[](unsigned int)", "std::vector<T>::operator[]"),
        ("Pool::operator()(int)", "Pool::operator()"),
        ("a::operator<(b const &)", "a::operator<"),
        ("a::operator<<<int>(int)", "a::operator<<<T>"),
        ("void * operator new(unsigned int)", "operator new"),
        ("run::<lambda_1f0c99>::operator()", "run::lambda::operator()"),
        ("(anonymous namespace)::helper(int)", "anonymous::helper"),
        ("`anonymous namespace'::helper", "anonymous::helper"),
        ("copy.part.0", "copy"),
        ("copy.constprop.3.cold", "copy"),
        ("ledger::Parser::Require$cold", "ledger::Parser::Require"),
        ("RtlUserThreadStart$filt$0", "RtlUserThreadStart"),
        ("app::main::h0123456789abcdef", "app::main"),
        ("?catch$0@?0??f@A@@QEAAXH@Z@4HA", "A::f"),
        ("?filt$0@0@seh@@", "seh"),
        ("_ZN3Foo3barEi@8", "Foo::bar"),
        ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
        ("_RNvCsabcd_7mycrate3foo", "mycrate::foo"),
        ("??__Efoo@@YAXXZ", "`dynamic initializer for 'foo''"),
        ("`main'::`1'::catch$0", "main"),
        ("`Pool::Run'::`2'::Task::Go", "Pool::Run::Task::Go"),
        ("void __cdecl `dynamic atexit destructor for 'foo''(void)", "`dynamic atexit destructor for 'foo''"),
        ("A::`scalar deleting destructor'", "A::`scalar deleting destructor'"),
        ("run(int)::{lambda(char)#2}::operator()(char) const", "run::lambda::operator()"),
        ("copy [clone .cold]", "copy"),
        ("__cxx_global_var_init.12", "__cxx_global_var_init"),
        ("server::{impl#3}::run::{{closure}}", "server::impl::run::closure"),
        ("<alloc::vec::Vec<u8> as core::ops::Index<usize>>::index", "alloc::vec::Vec::index"),
        ("_$LT$server..Pool$u20$as$u20$core..ops..Drop$GT$::drop::h0123456789abcdef", "server::Pool::drop"),
        ("main.(*Server).Handle.func2.1", "main.Server.Handle.func"),
        ("Page.<>c__DisplayClass3_0.<Load>b__1", "Page.DisplayClass.Load.b"),
        ("List`1[[System.Int32, mscorlib]].Add(System.__Canon)", "List`1.Add"),
        ("int (*f(int))(char)", "f"),
        ("int (__cdecl*__cdecl ns::g<int>(int))(char)", "ns::g<T>"),
        ("A::operator int (*)(char)", "A::operator int"),
        ("A<B::operator> >::f", "A<T>::f"),
        ("A<&B::operator<, C<int> >::f(int)", "A<T>::f"),
        ("A<&B::operator-> >::operator->", "A<T>::operator->"),
        ("main::__l2::<lambda_1>::operator()", "main::lambda::operator()"),
        ("`main'::`2'::<lambda_1>::operator()", "main::lambda::operator()"),
        ("server::impl$3::fmt", "server::impl#3::fmt"),
        ("server::{impl#3}::fmt", "server::impl#3::fmt"),
        ("server::impl$4::fmt_all", "server::impl::fmt_all"),
        ("", ""),
    ],
)
def test_a_plain_name_is_the_same_from_build_to_build(symbol: str, name: str):
    assert plain_name(symbol) == name


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text("ab:<>() operator`'@?_Z0.", max_size=300))
def test_any_text_has_a_bounded_plain_name(symbol: str):
    assert len(plain_name(symbol)) <= 160
