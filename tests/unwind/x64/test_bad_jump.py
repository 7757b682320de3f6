# SPDX-License-Identifier: Apache-2.0
"""Threads that have only just arrived, by a call through a bad pointer, perhaps by way of an adjustor thunk."""

from __future__ import annotations

import pytest

from tests.unwind.x64 import assembler as asm
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.x64.bad_jump import has_just_arrived

APP = Module("app.exe", "", 0x7FF7_0000_0000, 0x4000)
CALLS, THUNK = APP.base + 0x1000, APP.base + 0x1040
STACK, DATA, OBJECT = 0x11000, 0x2_0000_0000, 0x3_0000_0000
CALL_RAX = bytes.fromhex("ff d0")
CALL_SLOT = bytes.fromhex("ff 50 18")  # call [rax+18h]
TO_OBJECT = bytes.fromhex("48 83 e9 10 48 8b 01")  # sub rcx, 10h; mov rax, [rcx]
JMP_SLOT = bytes.fromhex("ff 60 08")  # jmp [rax+8]


def arrived(call: bytes = CALL_SLOT, thunk: bytes = b"", *, at: int = DATA, target: int = THUNK) -> bool:
    """Whether a thread at `at` has just arrived. `call` is before its return address, and [rax+18h] is `target`."""
    code = (b"\x90" * 8 + call).ljust(0x40, b"\xcc") + thunk.ljust(0x100, b"\xcc")
    return_address = CALLS + 8 + len(call)
    memory = memory_of(
        {
            APP.base: asm.ImageBuilder(code).build(),
            STACK: return_address.to_bytes(8, "little"),
            OBJECT: bytes(0x18) + target.to_bytes(8, "little"),
            DATA: thunk.ljust(0x100, b"\xcc"),
        }
    )
    images = ImageMap(memory, ModuleMap([APP]))
    return has_just_arrived(images, Registers.named(Arch.X64, {"rip": at, "rsp": STACK, "rax": OBJECT}))


def test_a_call_has_led_to_where_the_thread_is():
    assert arrived(CALL_SLOT, target=DATA)
    assert arrived(CALL_RAX, at=OBJECT)


def test_a_call_that_led_elsewhere_or_no_call_has_not():
    assert not arrived(CALL_SLOT, target=DATA + 8)
    assert not arrived(b"\x90\x90", at=OBJECT)


def test_a_stack_that_cannot_be_read_shows_no_call():
    images = ImageMap(memory_of({}), ModuleMap([]))
    assert not has_just_arrived(images, Registers.named(Arch.X64, {"rip": DATA, "rsp": STACK}))


@pytest.mark.parametrize(
    ("thunk", "is_one"),
    [
        pytest.param(TO_OBJECT + JMP_SLOT, True, id="of an adjustor"),
        pytest.param(bytes.fromhex("ff e0"), True, id="jmp rax"),
        pytest.param(bytes.fromhex("48 63 41 fc 48 2b c8 ff 62 08"), True, id="movsxd and sub, jmp [rdx+8]"),
        pytest.param(bytes.fromhex("48 8d 49 f0") + JMP_SLOT, True, id="lea"),
        pytest.param(bytes.fromhex("48 83 c1 10") + JMP_SLOT, True, id="add"),
        pytest.param(b"\x90" + JMP_SLOT, False, id="another instruction"),
        pytest.param(bytes.fromhex("48 83 c3 10") + JMP_SLOT, False, id="changes rbx"),
        pytest.param(bytes.fromhex("48 83 ec 20") + JMP_SLOT, False, id="changes rsp"),
        pytest.param(bytes.fromhex("48 89 01") + JMP_SLOT, False, id="writes to memory"),
        pytest.param(bytes.fromhex("ff 25 00 00 00 00"), False, id="jmp through an import"),
        pytest.param(bytes.fromhex("eb 10"), False, id="jmp to a fixed place"),
        pytest.param(bytes.fromhex("c3"), False, id="returns"),
        pytest.param(TO_OBJECT[:4] * 4 + JMP_SLOT, True, id="five instructions"),
        pytest.param(TO_OBJECT[:4] * 5 + JMP_SLOT, False, id="six instructions"),
    ],
)
def test_a_thunk_ends_with_a_jump_through_a_register_and_keeps_what_its_caller_needs(thunk: bytes, is_one: bool):
    assert arrived(CALL_SLOT, thunk) is is_one


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 12, 13, 14, 15])
def test_a_thunk_changes_no_register_that_is_the_callers(number: int):
    """mov reg, [rcx] with each nonvolatile register, and rsp."""
    load = bytes([0x4C if number > 7 else 0x48, 0x8B, (number & 7) << 3 | 1])
    assert not arrived(CALL_SLOT, load + JMP_SLOT)


@pytest.mark.parametrize("number", [0, 1, 2, 8, 9, 10, 11])
def test_a_thunk_may_change_volatile_registers(number: int):
    load = bytes([0x4C if number > 7 else 0x48, 0x8B, (number & 7) << 3 | 1])
    assert arrived(CALL_SLOT, load + JMP_SLOT)


def test_32_bits_of_rsp_are_the_callers_as_well():
    assert not arrived(CALL_SLOT, bytes.fromhex("83 c4 08") + JMP_SLOT)


def test_a_thunk_outside_images_may_be_anything():
    assert not arrived(CALL_SLOT, JMP_SLOT, at=DATA + 0x80, target=DATA)
