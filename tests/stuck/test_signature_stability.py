# SPDX-License-Identifier: Apache-2.0
"""Pairs of stacks that show one fault and must have one signature, and pairs of two faults, which must have two."""

from __future__ import annotations

import pytest

from throwstack.names.demangle import undecorate
from throwstack.names.function_extent import Certainty
from throwstack.names.symbols import Name, SymbolKind
from throwstack.stuck.signature import Signature, signature, waiting_signature


def names(text: str, *, base: int = 0x400000) -> list[Name]:
    """Return names from `module!symbol+0x10 < …`; `module+0x1a2f` is a frame without a symbol, `?` marks a doubt."""
    found = []
    for index, label in enumerate(text.split(" < ")):
        is_doubtful = label.startswith("?")
        module, _, rest = label.removeprefix("?").partition("!")
        symbol, _, offset = rest.partition("+0x")
        if not rest:
            module, _, offset = module.partition("+0x")
        number = int(offset or "0", 16)
        rva = number if not symbol else 0x1000 * len(symbol) + number
        kind = SymbolKind.EXPORT if is_doubtful else SymbolKind.PDB
        address = base + 0x100 * index
        found.append(
            Name(
                address,
                module,
                undecorate(symbol),
                number,
                kind,
                certainty=Certainty.DOUBTFUL if is_doubtful else Certainty.CERTAIN,
                raw=symbol,
                rva=rva,
            )
        )
    return found


def signed(text: str, *, base: int = 0x400000) -> Signature:
    return signature(names(text, base=base), "ACCESS_VIOLATION")


RAISED = "ntdll!RtlDispatchException < ntdll!RtlRaiseException < KERNELBASE!RaiseException < app!f"

EQUAL = [
    # modules, places in functions, and Windows versions
    ("app!Parse+0x10 < app!main+0x20", "APP!Parse+0x14 < APP!main+0x2c"),
    ("app!f < KERNEL32!BaseThreadInitThunk < ntdll!RtlUserThreadStart", "app!f < kernel32!BaseThreadStart"),
    ("ntdll!ZwClose < app!Stop", "ntdll!NtClose < app!Stop"),
    ("KERNELBASE!RaiseException < app!f", "ntdll!RtlRaiseException < KERNEL32!RaiseException < app!f"),
    # PDB and exports
    ("app!?Read@Parser@@QEAAXH@Z < app!main", "app!Parser::Read < app!main"),
    ("app!_Read@8 < app!main", "app!Read < app!main"),
    ("app!ns::f<int,std::vector<char> >(int) < app!main", "app!ns::f<long,char> < app!main"),
    # parts of functions
    ("app!Parse$cold+0x8 < app!main", "app!Parse+0x80 < app!main"),
    ("app!Parse.cold < app!main", "app!Parse.part.0 < app!main"),
    ("app!Parse [clone .cold.3] < app!main", "app!Parse.constprop.1.isra.0 < app!main"),
    ("app!`main'::`1'::catch$0 < app!main", "app!main$catch$2 < app!main"),
    ("app!?catch$0@?0??f@A@@QEAAXXZ@4HA < app!main", "app!A::f < app!main"),
    # numbers that compilers give out
    ("app!run::<lambda_1>::operator() < app!run", "app!run::<lambda_1f0c9d>::operator() < app!run"),
    ("app!run()::$_0::operator()() const < app!run", "app!run()::$_3::operator()() const < app!run"),
    ("app!run(int)::{lambda(char)#1}::operator() < app!run", "app!run(int)::{lambda(char)#2}::operator() < app!run"),
    ("app!srv::run::{closure#0} < app!main", "app!srv::run::{closure#4} < app!main"),
    ("app!srv::run::closure$0 < app!main", "app!srv::run::{{closure}} < app!main"),
    ("app!srv::impl$1::get < app!main", "app!srv::{impl#2}::get < app!main"),
    ("app!srv::get::h0123456789abcdef < app!main", "app!srv::get::hfedcba9876543210 < app!main"),
    ("app!_ZN3srv3get17h0123456789abcdefE < app!main", "app!srv::get < app!main"),
    ("app!`anonymous namespace'::f < app!main", "app!(anonymous namespace)::f < app!main"),
    ("app!?f@?A0x12345678@@YAXXZ < app!main", "app!?f@?A0x9abcdef0@@YAXXZ < app!main"),
    ("app!__cxx_global_var_init.12 < app!main", "app!__cxx_global_var_init.3 < app!main"),
    ("app!main.(*Server).Handle.func1 < app!main.main", "app!main.(*Server).Handle.func2.1 < app!main.main"),
    ("app!Page.<Load>b__0_1 < app!Main", "app!Page.<Load>b__2_0 < app!Main"),
    ("app!Page.<>c__DisplayClass3_0.<Load>b__1 < app!Main", "app!Page.<>c__DisplayClass12_1.<Load>b__0 < app!Main"),
    # ends
    (
        f"ucrtbase!abort < ucrtbase!terminate < app!__scrt_unhandled_exception_filter < {RAISED}",
        RAISED,
    ),
    ("ucrtbase!abort < ucrtbase!_wassert < app!Check", "ucrtbased!_CrtDbgReportW < ucrtbased!_wassert < app!Check"),
    ("app!OnAbort < ucrtbase!raise < ucrtbase!abort < app!Check", "ucrtbase!abort < app!Check"),
    (
        "app!__rust_start_panic < app!std::panicking::rust_panic < app!core::panicking::panic_fmt < app!srv::get",
        "app!std::process::abort < app!hook < app!std::panicking::rust_panic_with_hook < app!srv::get",
    ),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_one_fault_has_one_signature(one: str, other: str):
    assert signed(one) == signed(other, base=0x7FF6A1C30000)


DIFFERENT = [
    ("app!Parse < app!main", "app!Load < app!main"),
    ("app!Parse < app!main", "other!Parse < app!main"),
    ("app!A::f < app!main", "app!B::f < app!main"),
    ("app!Page.<Load>b__0_1 < app!Main", "app!Page.<Save>b__0_1 < app!Main"),
    ("app!srv::run::{closure#0} < app!main", "app!srv::stop::{closure#0} < app!main"),
    ("app!main.(*Server).Handle < app!main.main", "app!main.(*Server).Close < app!main.main"),
    ("app!`dynamic initializer for 'a'' < app!main", "app!`dynamic initializer for 'b'' < app!main"),
    ("app!run()::$_0::operator()() const < app!f", "app!stop()::$_0::operator()() const < app!f"),
    ("app!A::`scalar deleting destructor' < app!f", "app!B::`scalar deleting destructor' < app!f"),
    ("ucrtbase!strlen < app!f", "ucrtbase!strlen < app!g"),
    ("ucrtbase!abort < ucrtbase!terminate < app!f", "ucrtbase!abort < ucrtbase!terminate < app!g"),
    # frames without names
    ("app+0x1a2f < app+0x3000", "app+0x1b00 < app+0x3000"),
    ("ntdll+0x1a2f < app!f", "ntdll+0x1b00 < app!f"),
    ("?app!DllRegisterServer+0x123 < app!main", "?app!DllRegisterServer+0x456 < app!main"),
    ("ucrtbase!abort < app+0x1a2f", "ucrtbase!abort < app+0x1b00"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_two_faults_have_two_signatures(one: str, other: str):
    assert signed(one).text != signed(other).text
    assert signed(one).digest != signed(other).digest


def test_callers_without_names_make_a_difference_in_the_hash():
    one, other = signed("app!Copy < app+0x1a2f"), signed("app!Copy < app+0x1b00")
    assert one.text == other.text
    assert one.digest != other.digest


def test_waits_at_one_place_have_one_signature_whatever_they_wait_in():
    one, other = (
        waiting_signature(names(f"{wait} < ucrtbase!terminate < app!Session::Close"))
        for wait in (
            "ntdll!NtWaitForSingleObject < KERNELBASE!WaitForSingleObjectEx",
            "ntdll!NtDelayExecution < app!Hook",
        )
    )
    assert one == other
    assert one.text == "app!Session::Close"
    assert one != waiting_signature(names("ntdll!NtWaitForSingleObject < ucrtbase!terminate < app+0x1a2f"))
