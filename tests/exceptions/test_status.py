# SPDX-License-Identifier: Apache-2.0
"""Status codes against values of [MS-ERREF], winerror.h, corerror.xml and winnt.h."""

from __future__ import annotations

import pytest

from throwstack.exceptions.status import fast_fail_name, hresult, managed_exceptions, ntstatus, win32


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0x80004003, "0x80004003 E_POINTER (Invalid pointer)"),
        (-0x7FFFBFFD, "0x80004003 E_POINTER (Invalid pointer)"),
        (0x80070005, "0x80070005 E_ACCESSDENIED (Access is denied)"),
        (0x80070050, "0x80070050 HRESULT_FROM_WIN32(ERROR_FILE_EXISTS) (The file exists)"),
        (0x80040E14, "0x80040E14 DB_E_ERRORSINCOMMAND"),
        (0x80131509, "0x80131509 COR_E_INVALIDOPERATION"),
        (0xD0000022, "0xD0000022 HRESULT_FROM_NT(STATUS_ACCESS_DENIED)"),
        (0x80EF1234, "0x80EF1234"),
    ],
)
def test_an_hresult_reads_as_its_code_name_and_message(code: int, expected: str):
    assert str(hresult(code)).startswith(expected)


def test_ntstatus_win32_and_fail_fast_codes_have_names():
    assert ntstatus(0xC0000005).name == "STATUS_ACCESS_VIOLATION"
    assert win32(0x6BA).name == "RPC_S_SERVER_UNAVAILABLE"
    assert fast_fail_name(3) == "FAST_FAIL_CORRUPT_LIST_ENTRY"
    assert fast_fail_name(77) == "FAST_FAIL_KERNEL_POINTER_EXPECTED"
    assert fast_fail_name(9999) == ""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0xC0000374, "0xC0000374 STATUS_HEAP_CORRUPTION (A heap has been corrupted)"),
        (0xC000041D, "0xC000041D STATUS_FATAL_USER_CALLBACK_EXCEPTION"),  # newer than [MS-ERREF]
        # Messages with gaps to be filled have a title in braces.
        (0x40000015, "0x40000015 STATUS_FATAL_APP_EXIT (Fatal Application Exit)"),
        (0xC0000142, "0xC0000142 STATUS_DLL_INIT_FAILED (DLL Initialization Failed)"),
        (0x80000001, "0x80000001 STATUS_GUARD_PAGE_VIOLATION"),
    ],
)
def test_codes_with_which_services_fail_have_names_and_messages(code: int, expected: str):
    assert str(ntstatus(code)) == expected


def test_an_hresult_leads_to_the_classes_of_the_clr_that_carry_it():
    assert managed_exceptions(0x80131509) == ("System.InvalidOperationException",)
    assert managed_exceptions(0x80004003)[0] == "System.NullReferenceException"
    assert managed_exceptions(0x80070002) == ("System.IO.FileNotFoundException",)
    assert managed_exceptions(0x12345678) == ()
