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


def program(distance: int = 0, first: str = "") -> Assembler:
    """The dispatcher calls dispatch. A function without a name does so too, `distance` bytes after the dispatcher.

    `first` is code at the dispatcher's start.
    """
    asm = Assembler(TEXT).label("KiUserExceptionDispatcher").emit(first)
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


@pytest.mark.parametrize(
    ("first", "has_symbols"),
    [("eb10" + "cc" * 16, False), ("ffe0", True)],
    ids=["the code leads over a gap", "the symbols say so, the code leads elsewhere"],
)
def test_the_code_or_a_certain_name_makes_the_dispatcher(first, has_symbols):
    """A hook has replaced the first bytes. Filling ends what an export names, unless the code leads over it."""
    asm = program(first=first)
    found = dispatched(asm, "back in dispatcher", has_symbols=has_symbols)
    assert (found.frames[2].ip, found.frames[2].is_interrupted) == (asm.labels["interrupted"], True)


def test_what_an_apc_has_interrupted_is_above_the_three_arguments_of_its_routine():
    asm = Assembler(TEXT).label("KiUserApcDispatcher").emit("8d7c2410", "58", "ffd0").label("back in dispatcher")
    asm.emit("6a01", "57", "cc").align().label("routine").emit(push(EBX)).label("here").emit("8bc1", pop(EBX), ret(12))
    asm.align().label("interrupted").emit(ret()).align()
    base = STACK.base - 0x800
    context = bytearray(x86_context())
    struct.pack_into("<I", context, X86.context_ip_at, asm.labels["interrupted"])
    struct.pack_into("<I", context, X86.context_ip_at + 12, STACK.base - 0x40)
    saved = struct.unpack(f"<{len(context) // 4}I", context)
    stack = Stack("esp", 0xB, asm.labels["back in dispatcher"], 1, 2, 3, *saved, base=base)
    found = walk(asm, stack, {"eip": asm.labels["here"], "esp": base, "ebp": 0}, module="ntdll.dll", exports=())
    assert [frame.ip for frame in found.frames[1:3]] == [asm.labels["back in dispatcher"], asm.labels["interrupted"]]
    assert found.frames[2].note == f"interrupted: CONTEXT at {base + 20:#x}"
