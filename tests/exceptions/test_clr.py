# SPDX-License-Identifier: Apache-2.0
"""Managed exceptions in words: by their object where it can be read, by the record alone where it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch
from throwstack.exceptions.describe import describe
from throwstack.exceptions.model import ExceptionKind, ExceptionText, FaultAccess, ManagedThrow
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.managed.fail_fast_arguments import FailFastArguments
from throwstack.managed.managed_exception import ManagedException

CORECLR = 0x10000000
FORMAT = ManagedException(
    "System.FormatException",
    ("System.SystemException", "System.Exception", "System.Object"),
    "no number in b",
    0x80131537,
    0x500,
    0,
)
ORDER = ManagedException(
    "Shop.OrderException", ("System.Exception", "System.Object"), "order 17", 0x80131601, 0x400, 0, (FORMAT,)
)
NULL = ManagedException(
    "System.NullReferenceException", ("System.SystemException", "System.Exception"), "not set", 0x80004003, 0x600, 0
)


def said(thrown: ManagedThrow | None, *parameters: int, code: int = 0xE0434352) -> ExceptionText:
    memory = memory_of({})
    images = ImageMap(memory, ModuleMap([Module("coreclr.dll", "", CORECLR, 0x1000)]))
    record = ExceptionRecord(code, 1, 0x7B013D7E, 0, parameters, 0x100, len(parameters))
    return describe(record, memory, images, Arch.X64, managed=thrown)


def test_type_message_and_hresult_are_those_of_the_object() -> None:
    text = said(ManagedThrow(ORDER, runtime=".NET 8.0.4"), 0xFFFFFFFF80131601, 0, 0, 0, CORECLR)
    assert text.title == 'Shop.OrderException "order 17", HRESULT 0x80131601 COR_E_INVALIDFILTERCRITERIA'
    assert (text.thrown_type, text.message, text.hresult) == ("Shop.OrderException", "order 17", 0x80131601)
    assert text.bases == ("System.Exception",)
    assert text.details[:3] == (
        'inner exception: System.FormatException "no number in b", HRESULT 0x80131537 COR_E_FORMAT',
        "runtime: .NET 8.0.4",
        "thrown by the runtime coreclr",
    )
    assert text.managed is ORDER


def test_bases_are_a_detail_where_there_are_more_than_every_exception_has() -> None:
    assert "bases: System.SystemException, System.Exception" in said(ManagedThrow(FORMAT)).details
    assert not any(detail.startswith("bases") for detail in said(ManagedThrow(ORDER)).details)


def test_each_inner_exception_is_a_detail_and_at_most_16() -> None:
    chain = FORMAT
    for depth in range(20):
        chain = replace(ORDER, message=f"level {depth}", inner=(chain,))
    details = said(ManagedThrow(chain)).details
    assert sum("inner exception: " in detail for detail in details) == 16
    assert "and 4 more inner exceptions" in details


def test_what_is_missing_of_inner_exceptions_is_a_detail_once() -> None:
    cause = replace(FORMAT, reasons=("message not readable: 0x900 is not readable",))
    thrown = replace(ORDER, inner=(cause, replace(cause, address=0x508)), reasons=("class not readable",))
    details = said(ManagedThrow(thrown)).details
    assert details.count("of an inner exception: message not readable: 0x900 is not readable") == 1
    assert details.count("class not readable") == 1


def test_without_the_object_no_class_is_claimed_but_those_that_usually_have_the_hresult_are_a_detail() -> None:
    text = said(ManagedThrow(None, "memory at 0x500 is not readable"), 0xFFFFFFFF80131601)
    assert text.title == "CLR exception, HRESULT 0x80131601 COR_E_INVALIDFILTERCRITERIA, type not readable"
    assert (text.thrown_type, text.managed) == ("", None)
    assert text.details[:2] == (
        "the exception object: memory at 0x500 is not readable",
        "classes that usually have this HRESULT: System.Reflection.InvalidFilterCriteriaException",
    )


def test_why_there_is_no_object_of_a_fault_in_managed_code_is_a_detail() -> None:
    lost = ManagedThrow(None, "memory at 0x500 is not readable", runtime=".NET 8.0.4")
    text = said(lost, 0, 8, code=0xC0000005)
    assert text.title == "ACCESS_VIOLATION reading 0x0000000000000008"
    assert text.details[1:3] == ("the exception object: memory at 0x500 is not readable", "runtime: .NET 8.0.4")


def test_a_fail_fast_whose_runtime_is_not_found_is_told_by_its_code_and_the_reason_is_a_detail() -> None:
    text = said(ManagedThrow(None, "a runtime that is linked into shop.exe cannot be found"), code=0x80131623)
    assert text.title == "0x80131623 COR_E_FAILFAST"
    assert text.details == ("the exception object: a runtime that is linked into shop.exe cannot be found",)


def test_an_object_whose_class_is_lost_has_its_message_and_says_why() -> None:
    found = replace(ORDER, type_name="", bases=(), reasons=("class not readable: memory at 0x20 is not readable",))
    text = said(ManagedThrow(found))
    assert text.title.startswith('CLR exception, type not readable, "order 17", HRESULT')
    assert "class not readable: memory at 0x20 is not readable" in text.details


def test_neither_a_message_nor_a_class_can_imitate_what_follows_in_the_title() -> None:
    forged = 'why", HRESULT 0x80004005 E_FAIL'
    shown = r'"why\", HRESULT 0x80004005 E_FAIL"'
    assert said(ManagedThrow(replace(ORDER, message=forged))).title == (
        rf"Shop.OrderException {shown}, HRESULT 0x80131601 COR_E_INVALIDFILTERCRITERIA"
    )
    given = ManagedThrow(None, given=FailFastArguments(forged))
    assert said(given, code=0x80131623).title == f"Environment.FailFast {shown}"
    text = said(ManagedThrow(replace(ORDER, type_name='Shop.X "why", HRESULT 0x80004005', message=None)))
    assert text.title.startswith(r"Shop.X \"why\", HRESULT 0x80004005, HRESULT 0x80131601")
    assert text.thrown_type == 'Shop.X "why", HRESULT 0x80004005'


def test_a_message_that_is_lost_is_left_out() -> None:
    assert said(ManagedThrow(replace(ORDER, message=None))).title.startswith("Shop.OrderException, HRESULT")


def test_an_hresult_in_the_record_that_is_not_the_objects_is_said() -> None:
    assert (
        "the record has another HRESULT: 0x80004005 E_FAIL (Unspecified error)"
        in said(ManagedThrow(ORDER), 0xFFFFFFFF80004005).details
    )


def test_a_null_reference_is_named_by_its_object_and_keeps_the_fault() -> None:
    text = said(ManagedThrow(NULL), 0, 8, code=0xC0000005)
    assert text.title == ('System.NullReferenceException "not set", ACCESS_VIOLATION reading 0x0000000000000008')
    assert (text.kind, text.thrown_type) == (ExceptionKind.HARDWARE_FAULT, "System.NullReferenceException")
    assert (text.fault_address, text.fault_kind, text.hresult) == (8, FaultAccess.READ, 0x80004003)


def test_a_fault_whose_object_cannot_be_read_says_so() -> None:
    text = said(ManagedThrow(None, "no structure of the runtime was found for this thread"), 0, 8, code=0xC0000005)
    assert text.title == "ACCESS_VIOLATION reading 0x0000000000000008"
    assert "the exception object: no structure of the runtime was found for this thread" in text.details


def test_an_exception_of_native_code_keeps_its_words_and_managed_codes_view_is_a_detail() -> None:
    seen = replace(NULL, type_name="System.Runtime.InteropServices.SEHException", message="External component")
    text = said(ManagedThrow(seen), code=0xE0001234)
    assert text.title == "0xE0001234 (defined by the application)"
    assert 'managed code sees it as System.Runtime.InteropServices.SEHException "External component"' in text.details


@pytest.mark.parametrize(("is_experimental", "count"), [(True, 1), (False, 0)])
def test_what_is_read_of_net_framework_is_labelled_experimental(is_experimental: bool, count: int) -> None:
    details = said(ManagedThrow(ORDER, is_experimental=is_experimental)).details
    assert sum("experimental" in detail for detail in details) == count


def test_environment_failfast_is_told_with_what_it_was_given() -> None:
    given = ManagedThrow(None, given=FailFastArguments("the shop is on fire", ORDER), runtime=".NET 8.0.4")
    text = said(given, code=0x80131623)
    assert text.title == (
        'Environment.FailFast "the shop is on fire": Shop.OrderException "order 17", '
        "HRESULT 0x80131601 COR_E_INVALIDFILTERCRITERIA"
    )
    assert (text.kind, text.thrown_type) == (ExceptionKind.FAIL_FAST, "Shop.OrderException")
    assert (text.message, text.hresult) == ("the shop is on fire", 0x80131623)
    alone = said(replace(given, given=FailFastArguments("the shop is on fire")), code=0x80131623)
    assert alone.title == 'Environment.FailFast "the shop is on fire"'
    assert alone.details == ("runtime: .NET 8.0.4",)


def test_what_environment_failfast_was_given_may_be_unknown() -> None:
    text = said(ManagedThrow(None), code=0x80131623)
    assert text.title == "Environment.FailFast, HRESULT 0x80131623 COR_E_FAILFAST"
    assert text.details == ("what it was given was not found on the stack",)
    assert said(None, code=0x80131623).title == "0x80131623 COR_E_FAILFAST"


def test_a_fault_of_native_code_keeps_its_own_title() -> None:
    text = said(ManagedThrow(NULL, is_cause=False), 0, 8, code=0xC0000005)
    assert text.title == "ACCESS_VIOLATION reading 0x0000000000000008"
    assert text.thrown_type == ""
    assert 'managed code sees it as System.NullReferenceException "not set"' in text.details
