# SPDX-License-Identifier: Apache-2.0
"""Fail-fasts of NativeAOT: the crash buffer in words, a buffer that is absent, and fail-fasts of others."""

from __future__ import annotations

import json

from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch
from throwstack.exceptions.describe import describe
from throwstack.exceptions.model import ExceptionKind, ExceptionText
from throwstack.images.image import ImageMap
from throwstack.images.modules import ModuleMap

BUFFER = 0x300000
THROWN = {
    "address": "0x500",
    "hr": "0x80131509",
    "message": "no stock",
    "type": "System.InvalidOperationException",
    "stack": [{"ip": "0x7ff600001000", "name": "Shop.Orders.Place(String)"}],
    "inner": [{"hr": "0x80131537", "message": "no number", "type": "System.FormatException"}],
}


def said(buffer: object, *, code: int = 0x48, is_there: bool = True) -> ExceptionText:
    data = json.dumps(buffer).encode()
    memory = memory_of({BUFFER: data} if is_there else {})
    parameters = (code, 0x80131509, BUFFER, len(data))
    record = ExceptionRecord(0xC0000409, 1, 0x7FF600002000, 0, parameters, 0x100, 4)
    return describe(record, memory, ImageMap(memory, ModuleMap([])), Arch.X64)


def test_an_unhandled_exception_has_type_message_and_inner_exceptions() -> None:
    text = said({"reason": "1", "runtime_version": "8.0.1", "exception": THROWN})
    assert text.title == 'System.InvalidOperationException "no stock", HRESULT 0x80131509 COR_E_INVALIDOPERATION'
    assert (text.kind, text.thrown_type, text.message) == (
        ExceptionKind.FAIL_FAST,
        "System.InvalidOperationException",
        "no stock",
    )
    assert 'inner exception: System.FormatException "no number", HRESULT 0x80131537 COR_E_FORMAT' in text.details
    assert "runtime: .NET NativeAOT 8.0.1" in text.details
    assert text.managed is not None
    assert [frame.method.name for frame in text.managed.stack] == ["Shop.Orders.Place(String)"]


def test_a_fail_fast_of_the_program_has_its_message() -> None:
    assert said({"reason": "2", "message": "out of orders"}).title == 'Environment.FailFast "out of orders"'
    forged = said({"reason": "2", "message": 'why": Shop.X "none'})
    assert forged.title == r'Environment.FailFast "why\": Shop.X \"none"'


def test_a_buffer_that_is_absent_or_no_buffer_costs_type_and_message_alone() -> None:
    absent, damaged = said({"reason": "1"}, is_there=False), said(["no", "object"])
    for text in (absent, damaged):
        assert text.title == (".NET NativeAOT fail-fast, HRESULT 0x80131509 COR_E_INVALIDOPERATION, type not readable")
        assert text.hresult == 0x80131509
    assert absent.details[0] == "the crash buffer: memory at 0x300000 is not readable"


def test_another_fail_fast_with_four_parameters_is_none_of_nativeaot() -> None:
    assert said({"reason": "1", "exception": THROWN}, code=7).title == "fail-fast 7 FAST_FAIL_FATAL_APP_EXIT"
