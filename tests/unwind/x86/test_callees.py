# SPDX-License-Identifier: Apache-2.0
"""What calls do to the stack pointer and the registers of their caller, by the code of the callee."""

from __future__ import annotations

from dataclasses import replace

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
from tests.unwind.x86.machine import TEXT, TEXT_SIZE, code_of
from throwstack.unwind.x86.callees import CalleeKind, Callees
from throwstack.unwind.x86.symbolic_state import SymbolicState, SymbolicValue, constant


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
    asm = Assembler(TEXT)
    asm.emit("e800000000", pop(EBX), "ebfe")  # and no return is found
    assert after_call(asm).sp == SymbolicValue(ESP, -4)


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


def test_what_the_callee_removes_is_no_argument_of_the_next_call() -> None:
    pushed = SymbolicState(is_from_entry=True, pushed=12)
    assert after_call(program(callee=(ret(8),)), pushed).pushed == 4
    assert after_call(program(callee=(ret(8),)), SymbolicState(pushed=4)).pushed == 0
    assert after_call(program(callee=(ret(8),)), SymbolicState(may_have_pushed=True)).may_have_pushed is False
    unknown = SymbolicState(doubt=2).with_register(ESP, None)
    state = after_call(program(callee=(ret(8),)), unknown)
    assert (state.sp, state.doubt) == (None, 2)


def test_a_helper_leaves_no_argument_of_the_next_call() -> None:
    state = after_call(program("cc", helper=("595b51c3",)), SymbolicState(is_from_entry=True, pushed=8))
    assert state.pushed == 0


def test_a_helper_that_does_not_come_back_is_an_ordinary_function() -> None:
    """`add esp, 4; ret 8`: returns to its caller's caller. What its `ret` says is all that is known."""
    state = after_call(program("cc", helper=("83c404", ret(8))))
    assert (state.sp, state.doubt) == (SymbolicValue(ESP, 8), 0)


@pytest.mark.parametrize("base", [TEXT, 0x80401000])
def test_a_call_through_a_register_that_holds_an_address(base: int) -> None:
    """`mov esi, offset function; call esi`; also at an odd address, and above 2 GB, where `/3GB` lets it be."""
    asm = Assembler(TEXT)
    asm.emit("ffd6").align().emit("90").label("function").emit(ret(12))
    at = asm.labels["function"] - TEXT + base
    code = code_of(asm, segments={0x80401000: asm.finish().ljust(0x1000, b"\xcc")})
    state = SymbolicState().with_register(ESI, constant(at))
    assert Callees(code).after_call(state, code.at(TEXT)).sp == SymbolicValue(ESP, 12)


@pytest.mark.parametrize(
    "held",
    [None, constant(0x7000000), SymbolicValue(ESI, 0), SymbolicValue(8, 0x7000000, is_word=True)],
)
def test_a_call_through_a_register_that_is_not_known_has_no_target(held: SymbolicValue | None) -> None:
    code = code_of(Assembler(TEXT).emit("ffd6", ret()))
    state = SymbolicState().with_register(ESI, held)
    assert Callees(code).target(state, code.at(TEXT)) is None


def guessed(*after: bytes | str, state: SymbolicState) -> tuple[int | None, int]:
    """How far esp has moved at `call [esi]` before the code `after`, and the doubt."""
    code = code_of(Assembler(TEXT).emit("ff16", *after))
    found = Callees(code).after_call(state, code.at(TEXT))
    moved = found.sp.offset - state.sp.offset if found.sp is not None else None
    return moved, found.doubt


def entered(depth: int, pushed: int = 8) -> SymbolicState:
    state = SymbolicState(is_from_entry=True, pushed=pushed)
    return state.with_register(ESP, SymbolicValue(ESP, -depth))


@pytest.mark.parametrize(
    ("depth", "dropped", "expected"),
    [
        (8, 8, (0, 0)),  # add esp, 8; ret: the caller removes them
        (8, 0, (8, 0)),
        (8, 12, (0, 1)),  # the callee cannot have pushed something: a guess is left
        (0x400, 0, (0x400, 0)),
        (0x404, 0, (8, 1)),  # no function takes so many
        (8, 6, (8, 1)),  # not in words
        (8, 7, (8, 1)),
        (8, 5, (8, 1)),
    ],
)
def test_the_rest_of_the_function_tells_what_is_gone(depth: int, dropped: int, expected: tuple[int, int]) -> None:
    after = (add(ESP, dropped), ret()) if dropped else (ret(),)
    assert guessed(*after, state=entered(depth)) == expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (("90" * 399, ret()), (8, 0)),  # 400 instructions
        (("90" * 400, ret()), (8, 1)),
        (("6a01ff16", ret()), (8, 1)),  # another call that is not known
        ((LEAVE, ret()), (8, 1)),  # esp comes from ebp
        (("0f45e0", ret()), (8, 1)),  # cmovne esp, eax
        ((push(ESP), ret()), (8, 1)),  # to an address on the stack: no return
        ((push(ECX), ret()), (8, 1)),
    ],
)
def test_the_rest_of_the_function_tells_nothing_if_it_is_long_or_uncertain(
    after: tuple[bytes | str, ...], expected: tuple[int, int]
) -> None:
    assert guessed(*after, state=entered(8)) == expected


def test_the_rest_of_the_function_is_asked_only_where_its_start_is_known() -> None:
    assert guessed(ret(), state=replace(entered(8), is_from_entry=False)) == (8, 1)
    realigned = entered(8).with_register(ESP, SymbolicValue(0x401003, -8))
    assert guessed(ret(), state=realigned) == (8, 1)
    assert after_call(Assembler(TEXT).emit("ff16", ret()), entered(8).with_register(ESP, None)).sp is None


def test_the_rest_of_a_function_is_followed_once() -> None:
    code = code_of(Assembler(TEXT).emit("ff16", "90" * 50, ret()))
    callees, work = Callees(code), []
    for _ in range(2):
        before = code.work_done
        assert callees.after_call(entered(8), code.at(TEXT)).doubt == 0
        work.append(code.work_done - before)
    assert work[0] > 50
    assert work[1] == 0


MIDDLE = SymbolicState()
"""In the middle of a function whose start is not known."""


@pytest.mark.parametrize(
    ("after", "state", "expected"),
    [
        ((sub(ESP, 8), push(EAX)), MIDDLE, (8, 0)),  # GCC allocates again what the callee removed
        ((push(EAX),), MIDDLE, (0, 0)),
        ((push(EAX),), SymbolicState(may_have_pushed=True), (0, 1)),
        ((add(ESP, 8), push(EAX)), SymbolicState(pushed=8), (0, 0)),  # the caller drops what it has pushed
        ((add(ESP, 12), push(EAX)), SymbolicState(pushed=8), (0, 0)),
        ((add(ESP, 8), ret()), SymbolicState(pushed=8), (0, 1)),  # or drops its locals
        ((add(ESP, 4), push(EAX)), SymbolicState(pushed=8), (8, 1)),  # too little: stdcall, and then a local
    ],
)
def test_without_the_start_of_the_function_the_code_after_a_call_gives_hints(
    after: tuple[bytes | str, ...], state: SymbolicState, expected: tuple[int, int]
) -> None:
    assert guessed(*after, state=state) == expected


def test_only_a_call_through_fs_that_is_followed_by_its_removal_leaves_its_return_address() -> None:
    found = after_call(Assembler(TEXT).emit("64ff15c0000000", add(ESP, 4), ret(8)))
    assert (found.sp, found.doubt) == (SymbolicValue(ESP, -4), 0)
    asm = Assembler(TEXT).emit("ff16", add(ESP, 4), push(EAX), "ebfe")  # call [esi]
    assert after_call(asm, SymbolicState(pushed=4)).sp == SymbolicValue(ESP, 0)
    last = code_of(Assembler(TEXT).emit("cc" * (TEXT_SIZE - 7), "64ff15c0000000"))
    call = last.at(TEXT + TEXT_SIZE - 7)
    assert Callees(last).after_call(SymbolicState(), call).sp == SymbolicValue(ESP, 0)  # no code follows
