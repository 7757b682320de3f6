# SPDX-License-Identifier: Apache-2.0
"""With exports only, code after KiUserExceptionDispatcher has its name. Only the dispatcher has interrupted code."""

from __future__ import annotations

import struct

import pytest

from tests.support.context_records import x86_context
from tests.unwind.x86.assemble import EBP, EBX, ECX, ESP, LEAVE, Assembler, mov, pop, push, ret
from tests.unwind.x86.machine import TEXT
from tests.unwind.x86.written_stack import STACK, Stack, walk
from throwstack.core.registers import X86

EXPORTS = ("KiUserExceptionDispatcher",)


def program(distance: int = 0) -> Assembler:
    """The dispatcher calls dispatch. A function without a name does so too, `distance` bytes after the dispatcher."""
    asm = Assembler(TEXT).label("KiUserExceptionDispatcher")
    asm.emit("fc", "8b4c2404", "8b1c24", push(ECX), push(EBX)).call("dispatch").label("back in dispatcher")
    asm.emit("0ac0", "740c", pop(EBX), pop(ECX), "6a00", push(ECX), "ffd0", "cc", "0f1f00", pop(EBX), ret())
    asm.emit(b"\x90" * distance).label("nameless").emit(push(ECX), push(EBX)).call("dispatch").label("back in nameless")
    asm.emit("83c408", ret()).align().label("outer").emit("ffd0").label("back in outer").emit("cc").align()
    asm.label("interrupted").emit(ret()).align()
    return asm.label("dispatch").emit(push(EBP), mov(EBP, ESP)).label("here").emit("8bc1", LEAVE, ret(8))


def dispatched(asm: Assembler, returns_to: str, *, has_symbols: bool):
    """dispatch's frame, and its two arguments: the addresses of a record and of a CONTEXT, which are further up.

    At the entry of the dispatcher esp points to the same two addresses. In the nameless function they are locals.
    """
    base = STACK.base - 0x800
    record, saved = base + 0x40, base + 0xA0
    stack = Stack(
        "ebp", 0, asm.labels[returns_to], record, saved, record, saved, asm.labels["back in outer"], base=base
    )
    stack.words += [0] * (16 - len(stack.words)) + [0xC0000005, *[0] * 23]
    context = bytearray(x86_context())
    struct.pack_into("<I", context, X86.context_ip_at, asm.labels["interrupted"])
    struct.pack_into("<I", context, X86.context_ip_at + 12, STACK.base - 0x40)
    stack.words += struct.unpack(f"<{len(context) // 4}I", context)
    registers = {"eip": asm.labels["here"], "esp": stack["ebp"], "ebp": stack["ebp"]}
    return walk(asm, stack, registers, module="ntdll.dll", exports=EXPORTS, has_symbols=has_symbols)


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
def test_the_code_from_the_export_on_is_the_dispatcher(has_symbols):
    asm = program()
    found = dispatched(asm, "back in dispatcher", has_symbols=has_symbols)
    assert found.frames[1].ip == asm.labels["back in dispatcher"]
    assert (found.frames[2].ip, found.frames[2].is_interrupted) == (asm.labels["interrupted"], True)


@pytest.mark.parametrize("distance", [0, 0x40, 0x720])
def test_a_function_further_on_has_only_the_nearest_name(distance):
    asm = program(distance)
    found = dispatched(asm, "back in nameless", has_symbols=False)
    assert found.frames[1].ip == asm.labels["back in nameless"]
    assert [frame.ip for frame in found.frames if frame.is_interrupted] == [asm.labels["here"]]
