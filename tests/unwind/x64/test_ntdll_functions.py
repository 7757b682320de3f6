# SPDX-License-Identifier: Apache-2.0
"""The functions of ntdll that a walk has to recognize: the start of a thread, and the exception dispatcher."""

from __future__ import annotations

import pytest

from tests.support.context_records import x64_context
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import TEXT, ImageBuilder
from throwstack.core.frames import StackBounds
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.unwind.x64.functions import Functions
from throwstack.unwind.x64.ntdll_functions import NtdllFunctions

BASE = 0x7FFA00000000
LOW = 0xE0000
THREAD_START, DISPATCHER, OTHER = TEXT, TEXT + 0x40, TEXT + 0xC0
NAMELESS = TEXT + 0x80
"""A function after the dispatcher that is not exported, so that the dispatcher's name is the nearest."""


def ntdll(*, name: str = "ntdll.dll", context: bytes = b"") -> NtdllFunctions:
    exports = {"RtlUserThreadStart": THREAD_START, "KiUserExceptionDispatcher": DISPATCHER, "RtlOther": OTHER}
    builder = ImageBuilder(b"\x90" * 0x100, exports=exports, dll_name=name)
    for begin in (*exports.values(), NAMELESS):
        builder.add(begin, begin + 0x30, asm.unwind_info([asm.alloc(4, 0x20)], 4))
    image = builder.build()
    memory = memory_of({BASE: image, LOW: context.ljust(0x1000, b"\0")})
    images = ImageMap(memory, ModuleMap([Module(name, "", BASE, len(image))]))
    return NtdllFunctions(images, Functions(images))


def test_the_start_of_a_thread_is_any_address_in_its_function() -> None:
    found = ntdll()
    assert found.is_thread_start(BASE + THREAD_START + 0x21)
    assert not found.is_thread_start(BASE + OTHER + 0x21)
    assert not found.is_thread_start(BASE + THREAD_START + 0x38)  # between two functions
    assert not found.is_thread_start(0x1234)


def test_a_module_that_only_exports_the_name_is_not_ntdll() -> None:
    assert not ntdll(name="made.dll").is_thread_start(BASE + THREAD_START + 0x21)


def in_process(name: str, image: bytes) -> NtdllFunctions:
    """The functions of a process whose one module is `name`; `image` is what of it is in the dump."""
    images = ImageMap(memory_of({BASE: image} if image else {}), ModuleMap([Module(name, "", BASE, 0x10000)]))
    return NtdllFunctions(images, Functions(images))


def test_a_stack_of_a_program_s_function_is_a_library_s_unless_ntdll_is_older_than_vista() -> None:
    """If nothing of ntdll is in the dump, it may be one since Vista."""
    before_vista = ImageBuilder(b"\x90" * 0x100, exports={"RtlOther": OTHER}, dll_name="ntdll.dll").build()
    assert ntdll().is_library_s(0x1234)
    assert in_process("ntdll.dll", b"").is_library_s(0x1234)
    assert not in_process("ntdll.dll", b"").is_library_s(BASE + OTHER)
    assert not in_process("ntdll.dll", before_vista).is_library_s(0x1234)
    assert not in_process("other.dll", b"").is_library_s(0x1234)


def at(function: int, sp: int = LOW) -> Registers:
    return Registers.named(Arch.X64, {"rip": BASE + function + 0x10, "rsp": sp})


@pytest.mark.parametrize(("function", "is_found"), [(DISPATCHER, True), (NAMELESS, False), (OTHER, False)])
def test_what_an_exception_interrupted_is_in_the_context_at_rsp(function: int, *, is_found: bool) -> None:
    data = bytearray(x64_context())
    data[0x98:0xA0] = (LOW + 0x800).to_bytes(8, "little")  # CONTEXT.Rsp
    found = ntdll(context=bytes(data)).interrupted(at(function), StackBounds(LOW, LOW + 0x1000))
    assert (found is not None) == is_found
    if found is not None:
        assert found.sp == LOW + 0x800


@pytest.mark.parametrize("rsp", [LOW - 8, LOW, LOW + 0x1000])
def test_a_context_whose_stack_is_not_above_it_is_debris(rsp: int) -> None:
    data = bytearray(x64_context())
    data[0x98:0xA0] = rsp.to_bytes(8, "little")
    assert ntdll(context=bytes(data)).interrupted(at(DISPATCHER), StackBounds(LOW, LOW + 0x1000)) is None


def test_a_context_with_other_flags_is_none() -> None:
    data = bytearray(x64_context())
    data[0x98:0xA0] = (LOW + 0x800).to_bytes(8, "little")
    data[0x30:0x34] = bytes(4)
    assert ntdll(context=bytes(data)).interrupted(at(DISPATCHER), StackBounds(LOW, LOW + 0x1000)) is None
