# SPDX-License-Identifier: Apache-2.0
"""Readable names from decorated ones. The decorated names are from compilers, the expected ones from the sources."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.names.demangle import (
    declaration,
    display_name,
    itanium_type_name,
    strip_parameters,
    type_name,
    undecorate,
)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("?f@@YAXXZ", "f"),
        ("?ExecuteResults@IDBCommand@@QAEHXZ", "IDBCommand::ExecuteResults"),
        ("?_com_raise_error@@YGXJPAUIErrorInfo@@@Z", "_com_raise_error"),
        ("??0A@@QAE@XZ", "A::A"),
        ("??1A@@UAE@XZ", "A::~A"),
        ("??RA@@QAEXH@Z", "A::operator()"),
        ("??BA@@QBEHXZ", "A::operator int"),
        ("??MA@@QAE_NABV0@@Z", "A::operator<"),
        ("??2@YAPAXI@Z", "operator new"),
        ("??_7_com_error@@6B@", "_com_error::`vftable'"),
        ("?x@A@@2HA", "A::x"),
        ("?p@@3PAHA", "p"),
        ("?g@?A0x1234abcd@@YAXXZ", "`anonymous namespace'::g"),
        ("??$max@H@std@@YAABHABH0@Z", "std::max<int>"),
        (
            "?push_back@?$vector@V?$list@HV?$allocator@H@std@@@std@@V?$allocator@H@2@@std@@QAEX$$QAV?$list@H@2@@Z",
            "std::vector<std::list<int,std::allocator<int> >,std::allocator<int> >::push_back",
        ),
        ("??_GA@@UAEPAXI@Z", "A::`scalar deleting destructor'"),
        ("??_EA@@UAEPAXI@Z", "A::`vector deleting destructor'"),
        ("?set_terminate@@YAP6AXXZP6AXXZ@Z", "set_terminate"),
        ("?signal@N@@YAP6AXH@ZHP6AXH@Z@Z", "N::signal"),
        ("?get@A@@QAEP6GHPAX@ZXZ", "A::get"),
        ("??BA@@QBEP6AHH@ZXZ", "A::operator int (__cdecl *)(int)"),
        ("_ZN3foo3barEi", "foo::bar"),
        ("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int,std::allocator<int> >::push_back"),
        ("__ZN3foo3barEi", "foo::bar"),
        ("__ZN3FooC1Ev@4", "Foo::Foo"),
        ("_ZN3Foo3barEi@8", "Foo::bar"),
        ("@_ZN3Foo3barEi@8", "Foo::bar"),
        ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
        ("_RINvNtC3std3mem8align_ofdE", "std::mem::align_of::<f64>"),
        ("_RNCNvC4bins4main0B3_", "bins::main::{closure#0}"),
        ("_RNDISRegister", "_RNDISRegister"),
        ("?dtor$2@?0??f@A@@QEAAXH@Z@4HA", "A::f$dtor$2"),
        ("?catch$0@?0?main@4HA", "main$catch$0"),
        ("?catch$12@?0???$g@H@N@@YAXH@Z@4HA", "N::g<int>$catch$12"),
        ("?filt$0@0@seh@@", "seh$filt$0"),
        ("?fin$3@0@f@A@@", "A::f$fin$3"),
        ("?filt$0@?0?@4HA", "?filt$0@?0?@4HA"),
        ("?f@@$$FYAXXZ", "f"),
        ("?f@A@@$$FQAAXXZ", "A::f"),
        ("?f@A@@$$FQE$AAMXPE$AAVString@System@@@Z", "A::f"),
        ("?main@@$$HYAHXZ", "main"),
        ("??__Efoo@@YAXXZ", "`dynamic initializer for 'foo''"),
        ("CreateFileW", "CreateFileW"),
        ("_foo@8", "_foo@8"),
        ("", ""),
        ("?", "?"),
        ("?\n@@YAXXZ", "?\n@@YAXXZ"),
    ],
)
def test_a_decorated_name_gives_the_qualified_name(raw, name):
    assert undecorate(raw) == name


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("A::f(int) const", "A::f"),
        ("?f@A@@QAEXH@Z", "A::f"),
        ("_ZN1A1fEi", "A::f"),
        ("_Zebra", "_Zebra"),
        ("_RTC_CheckEsp()", "_RTC_CheckEsp"),
        ("__ZN3foo3barEv", "foo::bar"),
        ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
        ("@_EH4_CallFilterFunc@8()", "_EH4_CallFilterFunc"),
        ("@fast@8", "fast"),
        ("@ILT+5(_main)", "ILT+5(_main)"),
        ("operator delete(void*)", "operator delete"),
    ],
)
def test_names_that_symbols_of_a_pdb_show(symbol, name):
    assert display_name(symbol) == name


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (".?AV_com_error@@", "_com_error"),
        (".?AVbad_alloc@std@@", "std::bad_alloc"),
        (".?AUX@?A0x1234@@", "`anonymous namespace'::X"),
        (".?AW4Colour@@", "Colour"),
        (".?AV?$vector@HV?$allocator@H@std@@@std@@", "std::vector<int,std::allocator<int> >"),
        (".H", "int"),
        (".PAD", "char *"),
        (".PEBD", "char const *"),
        (".", "."),
        ("", ""),
        (".?AV", ".?AV"),
        (
            ".?AV?$basic_string@_WU?$char_traits@_W@std@@V?$allocator@_W@2@@std@@",
            "std::basic_string<wchar_t,std::char_traits<wchar_t>,std::allocator<wchar_t> >",
        ),
        (".PEB_W", "wchar_t const *"),
        (".PAVCException@@", "CException *"),
        ("_com_error", "_com_error"),
        ("rust_panic", "rust_panic"),
        (".?AV\x1b@@", ".?AV\x1b@@"),
    ],
)
def test_a_type_descriptor_gives_the_name_of_the_type(raw, name):
    assert type_name(raw) == name


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        ("A::f(int) const", "A::f"),
        ("A::operator()(int)", "A::operator()"),
        ("A::operator()", "A::operator()"),
        ("A::operator int (__cdecl*)(char)", "A::operator int (__cdecl*)(char)"),
        ("A::operator int (__cdecl*)(char)(void) const", "A::operator int (__cdecl*)(char)"),
        ("f(void (__cdecl*)(int))", "f"),
        ("<lambda_1>::operator()(int) const", "<lambda_1>::operator()"),
        ("main", "main"),
        ("()", "()"),
        (")", ")"),
    ],
)
def test_a_function_name_is_stripped_of_its_parameters(signature, name):
    assert strip_parameters(signature) == name


def test_a_gcc_type_info_gives_the_name_of_the_type():
    assert itanium_type_name("St13runtime_error") == "std::runtime_error"
    assert itanium_type_name("i") == "int"
    assert itanium_type_name("\x1b") == ""


def test_a_decorated_name_gives_the_whole_declaration():
    assert declaration("?f@A@@QAEXH@Z") == "public: void __thiscall A::f(int)"
    assert declaration("f") is None


def nested_templates(depth: int, references: int) -> str:
    """Return the name of a class template whose arguments are class templates, and so on, `depth` levels."""
    if depth == 0:
        return "V?$B@H@@"
    return "V?$A@" + nested_templates(depth - 1, references) + "V1@" * references + "@@"


def nested_functions(depth: int, references: int) -> str:
    """Return the name of a pointer to a function that takes pointers to functions."""
    return "PAH" if depth == 0 else "V?$A@P6AX" + nested_functions(depth - 1, references) + "0" * references + "@Z@@"


@pytest.mark.parametrize("nested", [nested_templates, nested_functions])
@pytest.mark.parametrize("references", [1, 2, 5, 20])
def test_names_that_decode_to_gigabytes_are_left_as_they_are(nested, references):
    """Each level at least doubles the decoded length: 150 characters can decode to more than fits into memory."""
    assert undecorate(f"?x@@3{nested(1, references)}A") == "x"
    for depth in range(1, 60):
        raw = f"?x@@3{nested(depth, references)}A"
        assert len(undecorate(raw)) < 1 << 23
        assert len(type_name(f".{nested(depth, references)}")) < 1 << 23


def test_a_rust_name_that_refers_back_to_itself_is_left_as_it_is():
    """Each reference can repeat all that is before it."""
    bomb = "_RIC1a" + "TB6_B6_E" * 40 + "E"
    assert undecorate(bomb) == bomb


def test_names_that_nest_too_deeply_are_left_as_they_are():
    raw = "?x@@3" + "V?$A@" * 50_000 + "H" + "@@" * 50_000 + "A"
    assert undecorate(raw) == raw
    assert type_name("." + "PA" * 50_000 + "H") == "." + "PA" * 50_000 + "H"


def test_parameters_that_refer_to_parameters():
    bomb = "P6AXPAH" + "".join(f"P6AX{str(level) * 6}@Z" for level in range(9)) + "@Z"
    assert type_name(f".{bomb}") == f".{bomb}"
    assert undecorate(f"?f@@YAX{bomb}@Z") == f"?f@@YAX{bomb}@Z"


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text("?AV@$HPD0123ZQ_WXabS<>.", max_size=200))
def test_results_are_bounded(text):
    for name in (f".?AV{text}", f".P6AX{text}", f"?{text}", f"_Z{text}"):
        assert len(type_name(name)) + len(undecorate(name)) < 20_000_000


def test_a_name_full_of_ampersands_is_matched_in_linear_time():
    """64 ampersands can be paired in more ways than could ever be tried."""
    name = "f()" + "&" * 64 + "x"
    assert strip_parameters(name) == name
    assert strip_parameters("f() const &&") == "f"
