# SPDX-License-Identifier: Apache-2.0
"""Which bytes before an address are a call: encodings from Intel's manual, and what only looks like one."""

from __future__ import annotations

import pytest

from throwstack.core.memory import memory_of
from throwstack.unwind.x64.call_sites import follows_call

AT = 0x10100


@pytest.mark.parametrize(
    "code",
    [
        "e8 01 02 03 04",  # call rel32
        "ff d0",  # call rax
        "41 ff d7",  # call r15
        "ff 10",  # call [rax]
        "ff 55 f8",  # call [rbp-8]
        "ff 14 24",  # call [rsp]
        "ff 54 24 20",  # call [rsp+20h]
        "ff 15 01 02 03 04",  # call [rip+…]
        "ff 90 01 02 03 04",  # call [rax+…]
        "ff 14 25 01 02 03 04",  # call [absolute]
        "ff 94 c8 01 02 03 04",  # call [rax+rcx*8+…]
        "42 ff 14 f8",  # call [rax+r15*8]
    ],
)
def test_calls(code: str) -> None:
    assert follows_call(memory_of({AT - 16: b"\x90" * 16, AT: bytes.fromhex(code)}), AT + len(bytes.fromhex(code)))


@pytest.mark.parametrize("code", ["e9 01 02 03 04", "ff e0", "ff 50", "ff 15 01 02 03", "c3", "ff d0 90"])
def test_no_calls(code: str) -> None:
    memory = memory_of({AT - 16: b"\x90" * 16, AT: bytes.fromhex(code)})
    assert follows_call(memory, AT + len(bytes.fromhex(code))) is False


def test_not_known_where_nothing_is_readable() -> None:
    assert follows_call(memory_of({AT: b"\xe8"}), 0x20000) is None


@pytest.mark.parametrize("address", [0, 3, 1 << 64])
def test_no_address_of_code(address: int) -> None:
    assert follows_call(memory_of({AT: b"\xe8"}), address) is False
