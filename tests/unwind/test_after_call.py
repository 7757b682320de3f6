# SPDX-License-Identifier: Apache-2.0
"""Which bytes before an address are a call: encodings from Intel's manual, and what only looks like one."""

from __future__ import annotations

import pytest

from throwstack.core.memory import PAGE_SIZE, memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.unwind.after_call import call_targets, calls_before, is_after_call

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
def test_each_form_of_a_call_is_one(code: str) -> None:
    assert is_after_call(memory_of({AT - 16: b"\x90" * 16, AT: bytes.fromhex(code)}), AT + len(bytes.fromhex(code)))


@pytest.mark.parametrize("code", ["e9 01 02 03 04", "ff e0", "ff 50", "ff 15 01 02 03", "c3", "ff d0 90"])
def test_other_bytes_are_no_call(code: str) -> None:
    memory = memory_of({AT - 16: b"\x90" * 16, AT: bytes.fromhex(code)})
    assert is_after_call(memory, AT + len(bytes.fromhex(code))) is False


def test_it_is_not_known_where_the_bytes_cannot_be_read() -> None:
    assert is_after_call(memory_of({AT: b"\xe8"}), 0x20000) is None


@pytest.mark.parametrize("address", [0, 3, 1 << 64])
def test_an_address_too_low_or_too_high_is_after_no_call(address: int) -> None:
    assert is_after_call(memory_of({AT: b"\xe8"}), address) is False


def starts(code: str) -> list[int]:
    """Where calls may begin that end with `code`, as the size of each."""
    data = bytes.fromhex(code)
    end = AT + len(data)
    return [end - start for start in calls_before(memory_of({AT - 16: b"\x90" * 16, AT: data}), end)]


def test_a_call_begins_where_its_opcode_is() -> None:
    assert starts("e8 01 02 03 04") == [5]
    assert starts("ff 94 c8 01 02 03 04") == [7]
    assert starts("c3") == []


def test_bytes_that_are_two_calls_give_both() -> None:
    # call [0d0ff1000h], or what ends with call eax
    assert sorted(starts("ff 15 00 10 ff d0")) == [2, 6]


def test_a_segment_override_belongs_to_the_call() -> None:
    # call fs:[0C0h], with which WoW64 leaves 32-bit code
    assert sorted(starts("64 ff 15 c0 00 00 00")) == [6, 7]


def test_the_page_before_need_not_be_there() -> None:
    page = bytes.fromhex("ff d0").ljust(PAGE_SIZE, b"\x90")
    assert list(calls_before(memory_of({0x20000: page}), 0x20002)) == [0x20000]
    assert is_after_call(memory_of({0x20000: page}), 0x20002) is None
    assert list(calls_before(memory_of({}), 0x20002)) == []


@pytest.mark.parametrize(
    ("code", "target"),
    [
        ("e8 fb 0f 00 00", AT + 0x1000),  # call rel32
        ("ff d3", 0x5000),  # call rbx
        ("41 ff d4", 0x6000),  # call r12
        ("ff 53 08", 0x7000),  # call [rbx+8]
        ("ff 54 24 08", 0x8000),  # call [rsp+8], rsp as it was before the call
    ],
)
def test_the_target_of_a_call_is_found_from_its_operand(code: str, target: int) -> None:
    data = bytes.fromhex(code)
    words = {0x5008: 0x7000, 0x9008: 0x8000}
    segments = {address: word.to_bytes(8, "little") for address, word in words.items()}
    memory = memory_of({AT - 16: b"\x90" * 16 + data, **segments})
    registers = Registers.named(Arch.X64, {"rip": target, "rsp": 0x9000 - 8, "rbx": 0x5000, "r12": 0x6000})
    assert target in call_targets(memory, AT + len(data), registers)
    assert target + 1 not in call_targets(memory, AT + len(data), registers)


def test_control_flow_guard_calls_through_rax() -> None:
    # call [__guard_dispatch_icall_fptr], which jumps to rax
    memory = memory_of({AT - 16: b"\x90" * 16 + bytes.fromhex("ff 15 00 00 00 00")})
    registers = Registers.named(Arch.X64, {"rip": 0, "rsp": 0x9000, "rax": 0xDEAD0000})
    assert 0xDEAD0000 in call_targets(memory, AT + 6, registers)
