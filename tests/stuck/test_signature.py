# SPDX-License-Identifier: Apache-2.0
"""Signatures: the reference case, what does not change them, what does, and hostile names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.names.function_extent import Certainty
from throwstack.names.symbols import Name, SymbolKind
from throwstack.stuck.signature import is_machinery, signature, thrown_at


def stack(*labels: str, base: int = 0x400000, kind: SymbolKind = SymbolKind.PDB) -> list[Name]:
    """Return names from `module!symbol+0x10`."""
    names = []
    for index, label in enumerate(labels):
        module, _, rest = label.partition("!")
        symbol, _, offset = rest.partition("+0x")
        names.append(Name(base + index * 0x100, module, symbol, int(offset or "0", 16), kind))
    return names


REFERENCE = stack(
    "KERNEL32!RaiseException+0x53",
    "MSVCR80!_CxxThrowException+0x46",
    "ftpsrvdata_pg!_com_raise_error+0x32",
    "ftpsrvdata_pg!_com_issue_error+0xd",
    "ftpsrvdata_pg!PrintProviderError+0x35",
    "ftpsrvdata_pg!IDBCommand::ExecuteResults+0x2a2",
    "ftpsrvdata_pg!IFTPSystemStats_Impl::UpdateSystemStats+0xaa",
    "FTPParsers!SessionManagerThreadProc+0x19a",
    "MSVCR80!_endthreadex+0x3b",
    "KERNEL32!BaseThreadStart+0x34",
)


def test_the_signature_of_the_reference_case():
    assert signature(REFERENCE, "_com_error").text == "ftpsrvdata_pg!PrintProviderError"
    assert str(thrown_at(REFERENCE)) == "ftpsrvdata_pg!_com_raise_error+0x32"


def test_a_signature_does_not_depend_on_bases_offsets_spelling_and_thread_start():
    known = signature(REFERENCE, "_com_error")
    moved = [
        replace(name, address=name.address + 0x1230000, offset=name.offset + 4, module=name.module.upper())
        for name in REFERENCE
    ]
    assert signature(moved, "_com_error") == known
    newer = [*REFERENCE[:-1], *stack("kernel32!BaseThreadInitThunk+0x14", "ntdll!_RtlUserThreadStart+0x2f")]
    assert signature(newer, "_com_error") == known


def test_another_fault_has_another_signature():
    known = signature(REFERENCE, "_com_error")
    other = signature(REFERENCE[5:], "_com_error")
    assert other.text != known.text
    assert other.digest != known.digest
    same_place = signature(REFERENCE, "ACCESS_VIOLATION")
    assert same_place.text == known.text
    assert same_place.digest != known.digest


def test_after_a_prefix_function_the_signature_goes_on_with_its_caller():
    names = stack(
        "MSVCR80!memcpy+0x5a", "app!std::basic_string<char>::assign+0x8", "app!Parser::Read(int)+0x20", "app!main"
    )
    assert signature(names).text == "msvcr80!memcpy | app!std::basic_string<T>::assign | app!Parser::Read"


def test_a_jump_to_an_address_without_code_is_named_with_its_caller():
    names = [Name(0), *stack("app!Callback::Invoke+0x10", "app!main")]
    assert signature(names).text == "unknown | app!Callback::Invoke"


def test_a_signature_begins_at_the_outermost_sentinel():
    names = stack("ucrtbase!abort+0x4e", "app!OnTerminate", "ucrtbase!terminate+0x1e", "app!Worker::Run", "app!main")
    assert signature(names).text == "app!Worker::Run"


def test_a_recursive_function_is_in_the_signature_once():
    deep = stack(*["ntdll!RtlpRecurse"] * 20, "app!Walk", *["app!Walk"] * 9)
    assert signature(deep).text == "ntdll!RtlpRecurse | app!Walk"


def test_a_frame_without_a_trusted_name_is_its_place_in_its_module():
    assert signature([Name(0x401A2F, "app", "", 0x1A2F, rva=0x1A2F), *stack("app!Other")]).text == "app+0x1a2f"
    certain = Name(0x463000, "app", "DllRegisterServer", 0x52000, SymbolKind.EXPORT, rva=0x63000)
    far = replace(certain, certainty=Certainty.LIKELY)
    assert signature([far]).text == "app+0x63000"
    assert signature([certain]).text == "app!DllRegisterServer"
    doubtful = Name(
        0x411123, "app", "DllRegisterServer", 0x123, SymbolKind.EXPORT, certainty=Certainty.DOUBTFUL, rva=0x11123
    )
    assert signature([doubtful]).text == "app+0x11123"
    far_in_filter = replace(doubtful, module="KERNEL32", symbol="UnhandledExceptionFilter", offset=0x55B)
    assert signature([far_in_filter, *stack("app!Parse")]).text == "app!Parse"
    near = stack("app!DllRegisterServer+0x20", kind=SymbolKind.EXPORT)
    assert signature(near).text == "app!DllRegisterServer"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("ucrtbase!abort app!Check app!main", "app!Check"),
        ("KERNELBASE!RaiseException ucrtbase!abort app!Check", "app!Check"),
        ("VCRUNTIME140!_CxxThrowException app!_com_raise_error app!main", "app!_com_raise_error"),
        ("ucrtbase!abort ucrtbase!terminate ntdll!KiUserExceptionDispatch app!main", "ucrtbase!abort"),
        ("ucrtbase!abort ucrtbase!terminate", "ucrtbase!abort"),
    ],
)
def test_what_a_reporter_raised_is_thrown_at_its_caller(text: str, place: str):
    names = stack(*text.split())
    assert str(thrown_at(names, is_raised=True)) == place
    assert thrown_at(names) == next(name for name in names if not is_machinery(name.symbol))


def test_a_stack_of_nothing_but_machinery_has_no_relevant_frames():
    assert signature(REFERENCE[:2]).text == "no relevant frames"
    assert thrown_at(REFERENCE[:2]) is None
    assert signature([]).text == "no relevant frames"


@pytest.mark.parametrize(
    "name",
    [
        "RaiseException",
        "KERNELBASE!RaiseException+0x69",
        "_RaiseException@16",
        "VCRUNTIME140!_CxxThrowException+0x97",
        "__CxxThrowException@8",
        "ntdll!RtlRaiseException",
        "ntdll!RtlRaiseStatus",
        "ntdll!KiRaiseUserExceptionDispatcher+0x3a",
        "__cxa_throw",
        "_Unwind_RaiseException",
        "clr!IL_Throw",
        "rpcrt4!RpcRaiseException",
    ],
)
def test_functions_that_carry_an_exception_are_machinery(name: str):
    assert is_machinery(name)


@pytest.mark.parametrize(
    "name", ["", "abort", "MSVCR71!abort", "ftpsrvdata_pg!_com_raise_error+0x32", "app!RaiseExceptionFor", "app"]
)
def test_functions_with_similar_names_are_no_machinery(name: str):
    assert not is_machinery(name)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=300), st.integers(0, 1 << 40)), max_size=20))
def test_hostile_names_give_a_bounded_printable_signature(frames: list[tuple[str, str, int]]):
    names = [Name(offset, module, symbol, offset, SymbolKind.EXPORT) for module, symbol, offset in frames]
    made = signature(names)
    assert made.text.isprintable()
    assert len(made.text) <= 256
    assert len(made.digest) == 8
