# SPDX-License-Identifier: Apache-2.0
"""Which registers of a thread that waits are known."""

from __future__ import annotations

import pytest

from throwstack.core.memory import Memory, SegmentSource
from throwstack.volatility.minidump_threads import waits_in_system_call

IP = 0x7C8285EC


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("8bd4 0f34", True),  # KiFastSystemCall of Server 2003: mov edx,esp; sysenter
        ("8bd4 0f34 9090909090", True),  # of XP
        ("8d542408 cd2e", True),  # KiIntSystemCall: lea edx,[esp+8]; int 2Eh
        ("8b4508 8b08", False),  # mov eax,[ebp+8]; mov ecx,[eax]: interrupted or faulted after it
        ("90909090", False),
    ],
)
def test_system_calls_of_x86_by_the_code_before_the_return(before: str, expected: bool):
    code = bytes.fromhex(before).rjust(0x5EC, b"\xcc")
    assert waits_in_system_call(Memory(SegmentSource({0x7C828000: code.ljust(0x1000, b"\xc3")})), IP) is expected


def test_code_that_is_absent_may_be_a_system_call():
    assert waits_in_system_call(Memory(SegmentSource({})), IP)
