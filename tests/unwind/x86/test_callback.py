# SPDX-License-Identifier: Apache-2.0
"""Stacks on which the kernel called back in the middle of a system call: a window procedure, a hook.

The layouts are those of stacks that WinDbg shows: `USER32!__fnDWORD+0x24`, `ntdll!KiUserCallbackDispatcher+0x2e`,
`USER32!NtUserMessageCall+0xc`, `USER32!SendMessageWorker+0x4d5`.
"""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EAX, EBP, EBX, ECX, EDX, ESP, LEAVE, Assembler, mov, mov_value, pop, push, ret
from tests.unwind.x86.machine import TEXT
from tests.unwind.x86.written_stack import STACK, Stack, slots, walk
from throwstack.core.frames import End, Trust

XP = ("83c404", "5a", "64a118000000", "8b4030", "8b402c", "ff1490")
"""add esp, 4; pop edx; the table of routines from the PEB; call [eax+edx*4]"""
WINDOWS_7 = ("648b0d00000000", "ba00104000", "8d442410", "894c2410", "89542414", "64a300000000", *XP)
"""Registers an exception handler in two words above the arguments first."""
STUBS = {
    "KiFastSystemCall": (mov_value(EAX, 0x11EE), mov_value(EDX, 0x7FFE0300), "ff12"),
    "WoW64, Windows 7": (mov_value(EAX, 0x11EE), "33c9", "8d542404", "64ff15c0000000"),
    "WoW64, Windows 10": (mov_value(EAX, 0x11EE), mov_value(EDX, 0x77001000), "ffd2"),
    "int 2Eh": (mov_value(EAX, 0x11EE), "8d542404", "cd2e"),
}
POPPED = ("WoW64, Windows 10", "int 2Eh")


def program(dispatcher: tuple[str, ...], stub: str) -> Assembler:
    """send calls a stub; the kernel calls back; the routine has been called by ntdll's dispatcher."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("6a02").call("send").label("back in start").emit("cc").align()
    asm.label("send").emit(push(EBP), mov(EBP, ESP), push(EBX), "6a05", "6a06").call("stub").label("back in send")
    asm.emit(pop(EBX), LEAVE, ret(4)).align()
    asm.label("stub").emit(*STUBS[stub]).label("back in stub")
    asm.emit("83c404" if stub == "WoW64, Windows 7" else b"", ret(8)).align()
    asm.label("KiUserCallbackDispatcher").emit(*dispatcher).label("back in dispatcher")
    asm.emit("33c9", "33d2", "cd2b", "cc").align()
    asm.label("routine").emit(push(EBP), mov(EBP, ESP), push(EBX), "33db", push(ECX))
    asm.label("in routine").emit(pop(ECX), pop(EBX), LEAVE, ret(4)).align()
    return asm


def called_back(asm: Assembler, *, registration: int, padding: int, stub: str) -> Stack:
    """The stack in the routine: its frame, the dispatcher's arguments and copy, then the system call's."""
    size = 4 * (2 + registration)
    above_stub = [] if stub in POPPED else ["stub's slot", asm.labels["back in stub"]]
    ebp = STACK.base - 0x100 + 8
    stack = Stack(
        *("esp", 0x11, 0xB, "ebp", 0, "routine returns", asm.labels["back in dispatcher"]),
        *("arguments", 0, 11, *[0x77] * registration, "copy", 0x10, 0x20, 3, *[0] * padding),
        *(*above_stub, "stub returns", asm.labels["back in send"], 6, 5),
        *(0xB0, "send's ebp", 0, "send returns", asm.labels["back in start"], 2, 0, 0, 0),
        base=ebp - 8,
    )
    assert stack["copy"] == stack["arguments"] + size
    stack.words[(stack["arguments"] - stack.base) // 4] = stack["copy"]
    stack.words[(stack["ebp"] - stack.base) // 4] = stack["send's ebp"]
    return stack


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("stub", STUBS)
@pytest.mark.parametrize(("dispatcher", "registration"), [(XP, 0), (WINDOWS_7, 2)], ids=["XP", "Windows 7"])
def test_the_caller_of_a_callback_is_the_stub_of_the_system_call(dispatcher, registration, stub, padding, has_symbols):
    asm = program(dispatcher, stub)
    stack = called_back(asm, registration=registration, padding=padding, stub=stub)
    registers = {"eip": asm.labels["in routine"], "esp": stack["esp"], "ebp": stack["ebp"]}
    exports = ("BaseThreadStart", "KiUserCallbackDispatcher")
    found = walk(asm, stack, registers, module="ntdll.dll", has_symbols=has_symbols, exports=exports)
    names = ["in routine", "back in dispatcher", "back in stub", "back in send", "back in start"]
    assert [frame.ip for frame in found.frames] == [asm.labels[name] for name in names]
    interrupted = stack["stub returns"] - 4 if stub in POPPED else stack["stub's slot"]
    assert slots(found)[:4] == [stack["routine returns"], interrupted, stack["stub returns"], stack["send returns"]]
    dispatcher_frame, send = found.frames[1:4:2]
    assert (dispatcher_frame.registers.bp, send.registers.bp) == (stack["send's ebp"], stack["send's ebp"])
    assert send.registers.gpr[EBX] == 0xB
    assert {frame.trust for frame in found.frames[1:]} <= {Trust.PROLOGUE}
    assert found.frames[2].note == "the kernel called back from this system call"


@pytest.mark.parametrize("argument", [0, 4], ids=["copy", "size"])
def test_a_callback_whose_system_call_is_not_found_ends_the_walk_with_a_detail(argument):
    # send's ebp is still in the register: following it would leave the stub and send out
    asm = program(XP, "KiFastSystemCall")
    stack = called_back(asm, registration=0, padding=0, stub="KiFastSystemCall")
    stack.words[(stack["arguments"] + argument - stack.base) // 4] += 0x80
    registers = {"eip": asm.labels["in routine"], "esp": stack["esp"], "ebp": stack["ebp"]}
    found = walk(asm, stack, registers, module="ntdll.dll")
    assert [frame.ip for frame in found.frames] == [asm.labels["in routine"], asm.labels["back in dispatcher"]]
    assert (found.end, found.detail) == (End.NO_RETURN_ADDRESS, "out of a user-mode callback")


def test_a_function_after_the_callback_dispatcher_is_not_the_dispatcher():
    # with exports only, it has the dispatcher's name
    asm = program(XP, "KiFastSystemCall")
    stack = Stack("esp", 0x11, 0xB, "ebp", 0, "returns", asm.labels["back in send"], 0, 0, 0)
    registers = {"eip": asm.labels["in routine"], "esp": stack["esp"], "ebp": stack["ebp"]}
    found = walk(asm, stack, registers, module="ntdll.dll", has_symbols=False, exports=("KiUserCallbackDispatcher",))
    assert found.frames[0].return_slot == stack["returns"]


@pytest.mark.parametrize("is_led_to", [True, False])
def test_of_a_dispatcher_that_took_another_stack_no_register_is_known(is_led_to):
    """mov esp, [410000h]: with which esp it was entered, and so its saved registers, nobody can say.

    If its first instruction is a jump to nobody knows where, nothing shows that the place after the call is its own.
    """
    asm = program(("8b2500004100" if is_led_to else "ffe0", *XP), "KiFastSystemCall")
    stack = called_back(asm, registration=0, padding=0, stub="KiFastSystemCall")
    registers = {"eip": asm.labels["in routine"], "esp": stack["esp"], "ebp": stack["ebp"]}
    found = walk(asm, stack, registers, module="ntdll.dll")
    if is_led_to:
        sp = stack["stub's slot"] + 4
        assert found.frames[2].ip == asm.labels["back in stub"]
        assert found.frames[2].registers.gpr == (None, None, None, None, sp, None, None, None)
    else:
        assert "the kernel called back from this system call" not in {frame.note for frame in found.frames}
