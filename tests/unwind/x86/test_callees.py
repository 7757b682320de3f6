# SPDX-License-Identifier: Apache-2.0
"""What calls do to the stack pointer and the registers of their caller, by the code of the callee."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import (
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    ESI,
    ESP,
    LEAVE,
    Assembler,
    add,
    lea,
    load,
    mov,
    pop,
    push,
    ret,
    store,
    sub,
)
from tests.unwind.x86.machine import TEXT, code_of
from throwstack.unwind.x86.callees import CalleeKind, Callees
from throwstack.unwind.x86.symbolic_state import SymbolicState, SymbolicValue


def program(*after_call: bytes | str, **callees: tuple[bytes | str, ...]) -> Assembler:
    """A call at the start of .text, what follows it, and functions by name; the call goes to the first of them."""
    asm = Assembler(TEXT)
    asm.call(next(iter(callees))).label("after").emit(*after_call).align()
    for name, parts in callees.items():
        asm.label(name).emit(*parts).align()
    return asm


def after_call(asm: Assembler, state: SymbolicState | None = None) -> SymbolicState | None:
    code = code_of(asm)
    call = code.at(TEXT)
    assert call is not None
    return Callees(code).after_call(SymbolicState(is_from_entry=True) if state is None else state, call)


def test_a_stdcall_function_removes_its_arguments() -> None:
    state = after_call(program(callee=(ret(8),)))
    assert state.sp == SymbolicValue(ESP, 8)
    assert state.doubt == 0


def test_a_callee_changes_volatile_registers_only() -> None:
    state = after_call(program(callee=(push(EBX), pop(EBX), ret())))
    assert [state.registers[number] for number in (EAX, ECX)] == [None, None]
    assert state.registers[EBX] == SymbolicValue(EBX, 0)


def seh_prolog() -> tuple[bytes | str, ...]:
    """`__SEH_prolog4` without the cookie: builds the frame of the function that called it."""
    return (
        *("6810204000", "64ff3500000000"),  # push handler; push fs:[0]
        *(load(EAX, ESP, 0x10), store(ESP, 0x10, EBP), lea(EBP, ESP, 0x10), "2be0"),  # sub esp, eax
        *(push(EBX), push(ESI), push(EDI), "ff75f8", ret()),  # push [ebp-8]: the return address
    )


def test_a_helper_that_builds_its_callers_frame_is_run_and_not_skipped() -> None:
    """`__SEH_epilog`: takes its return address off the stack, removes the caller's frame, pushes it back."""
    epilog = ("59", pop(EDI), pop(ESI), pop(EBX), LEAVE, push(ECX), ret())
    asm = program(ret(), epilog=epilog)
    assert Callees(code_of(asm)).at(asm.labels["epilog"]).kind is CalleeKind.HELPER
    frame = SymbolicState().push(SymbolicValue(EBP, 0))
    frame = frame.with_register(EBP, frame.sp)
    for register in (EBX, ESI, EDI):
        frame = frame.push(SymbolicValue(register, 0))
    state = after_call(asm, frame)
    assert state.sp == SymbolicValue(ESP, 0)
    assert state.registers[EBP] == SymbolicValue(EBP, 0)


def test_a_function_that_only_uses_ebp_is_no_helper() -> None:
    asm = program(callee=(push(EBP), mov(EBP, ESP), sub(ESP, 8), LEAVE, ret(4)))
    found = Callees(code_of(asm)).at(asm.labels["callee"])
    assert (found.kind, found.popped) == (CalleeKind.ORDINARY, 4)


@pytest.mark.parametrize("chkstk", [("51", lea(ECX, ESP, 8), "2bc8", "8be1", ret()), ("94", ret())])
def test_a_stack_probe_allocates_eax_bytes(chkstk: tuple[bytes | str, ...]) -> None:
    """`mov eax, 2000h; call _chkstk`: ends with `mov esp, ecx` or `xchg eax, esp`."""
    asm = program(callee=chkstk)
    assert Callees(code_of(asm)).at(asm.labels["callee"]).kind is CalleeKind.PROBE
    at_call = SymbolicState(is_from_entry=True)
    known = after_call(asm, at_call.with_register(EAX, SymbolicValue(8, 0x2000)))
    assert known.sp == SymbolicValue(ESP, -0x2000)
    unknown = after_call(asm, at_call.with_register(EAX, None))
    assert unknown.sp == SymbolicValue(TEXT, 0)  # a base of its own: counted from the call


def test_a_callee_that_is_not_known_removes_what_the_rest_of_the_function_says() -> None:
    """`call [esi]` with 8 bytes pushed, and then `ret`: the return address is right above them, so they are gone."""
    asm = Assembler(TEXT)
    asm.emit("ff16", ret())
    pushed = SymbolicState(is_from_entry=True).push(SymbolicValue(8, 1)).push(SymbolicValue(8, 2))
    state = after_call(asm, pushed)
    assert (state.sp, state.doubt) == (SymbolicValue(ESP, 0), 0)


def test_a_guess_that_nothing_supports_is_a_doubt() -> None:
    asm = Assembler(TEXT)
    asm.emit("ff16", "ebfe")  # and then an endless loop
    pushed = SymbolicState(is_from_entry=True).push(SymbolicValue(8, 1))
    state = after_call(asm, pushed)
    assert (state.sp, state.doubt) == (SymbolicValue(ESP, 0), 1)


def test_a_call_through_a_register_that_holds_an_import() -> None:
    """`mov esi, [import]` and then `call esi`, as compilers write several calls of one function."""
    asm = Assembler(TEXT)
    asm.emit("ffd6").align().label("import").absolute(b"", "function").align().label("function").emit(ret(12))
    state = SymbolicState().with_register(ESI, SymbolicValue(8, asm.labels["import"], is_word=True))
    assert after_call(asm, state).sp == SymbolicValue(ESP, 12)


def test_a_call_of_the_next_instruction_pushes_its_address() -> None:
    asm = Assembler(TEXT)
    asm.emit("e800000000", pop(EBX), ret())  # position-independent code: call $+5; pop ebx
    state = after_call(asm)
    assert state.sp == SymbolicValue(ESP, -4)
    assert state.load(state.sp).constant == TEXT + 5


def test_the_switch_to_64_bit_code_leaves_its_return_address() -> None:
    """WoW64 up to Windows 7: `call fs:[0C0h]; add esp, 4; ret 8`."""
    asm = Assembler(TEXT)
    asm.emit("64ff15c0000000", add(ESP, 4), ret(8))
    assert after_call(asm).sp == SymbolicValue(ESP, -4)
    asm = Assembler(TEXT)
    asm.emit("64ff15c0000000", ret(8))  # since Windows 8
    assert after_call(asm).sp == SymbolicValue(ESP, 0)


def test_the_prolog_helper_of_structured_exception_handling() -> None:
    """push 10h; push offset; call __SEH_prolog: the function goes on with ebp set up and its locals allocated."""
    asm = Assembler(TEXT)
    asm.label("function").emit("6a10", "6800204000").label("call").call("helper").label("body").emit("cc").align()
    asm.label("helper").emit(*seh_prolog())
    code = code_of(asm)
    callees = Callees(code)
    assert callees.at(asm.labels["helper"]).kind is CalleeKind.HELPER
    pushed = SymbolicState(is_from_entry=True).push(SymbolicValue(8, 0x10)).push(SymbolicValue(8, 0x402000))
    state = callees.after_call(pushed, code.at(asm.labels["call"]))
    assert state.registers[EBP] == SymbolicValue(ESP, -4)
    assert state.load(SymbolicValue(ESP, -4)) == SymbolicValue(EBP, 0)
    assert state.doubt == 0
