# SPDX-License-Identifier: Apache-2.0
"""Code followed from its first instruction: every branch, to every `ret`."""

from __future__ import annotations

from tests.unwind.x86.assemble import (
    EAX,
    EBP,
    EBX,
    ESP,
    JE,
    LEAVE,
    Assembler,
    add,
    mov,
    pop,
    push,
    push_value,
    ret,
    sub,
)
from tests.unwind.x86.machine import DATA, TEXT, code_of, words
from throwstack.unwind.x86.control_flow import ControlFlow
from throwstack.unwind.x86.decode import Instruction
from throwstack.unwind.x86.symbolic_state import SymbolicState, SymbolicValue

LIMIT = 100


def comes_back(state: SymbolicState, _: Instruction) -> SymbolicState | None:
    """A call that changes nothing."""
    return state


def never_returns(_: SymbolicState, __: Instruction) -> SymbolicState | None:
    return None


def flow(asm: Assembler, after_call=comes_back, *, limit: int = LIMIT, **options) -> ControlFlow:
    return ControlFlow(code_of(asm, **options), TEXT, SymbolicState(is_from_entry=True), after_call, limit=limit)


def test_both_sides_of_a_branch_are_followed_to_their_returns() -> None:
    asm = Assembler(TEXT)
    asm.emit(push(EBX)).branch(JE, "short").emit(sub(ESP, 8)).label("deep").emit(add(ESP, 8), pop(EBX))
    asm.label("first return").emit(ret(4)).label("short").emit(pop(EBX)).label("second return").emit(ret(4))
    found = flow(asm)
    assert found.state_at(asm.labels["deep"]).sp == SymbolicValue(ESP, -12)
    assert {(way.address, way.popped) for way in found.all_returns()} == {
        (asm.labels["first return"], 4),
        (asm.labels["second return"], 4),
    }
    assert all(way.state.sp == SymbolicValue(ESP, 8) for way in found.returns)
    assert all(way.target == SymbolicValue(ESP, 0, is_word=True) for way in found.returns)


def test_code_after_a_call_that_never_returns_is_not_reached() -> None:
    asm = Assembler(TEXT)
    asm.call("throw").label("after").emit(ret()).label("throw").emit("cc")
    assert flow(asm).state_at(asm.labels["after"]) is not None
    assert flow(asm, never_returns).state_at(asm.labels["after"]) is None


def test_a_call_at_the_very_end_of_a_function_does_not_lead_into_the_next_one() -> None:
    asm = Assembler(TEXT)
    asm.label("function").call("throw").label("next").emit(ret()).label("throw").emit("cc")
    assert flow(asm, functions=("function", "next")).state_at(asm.labels["next"]) is None


def test_a_jump_table_is_followed_and_another_indirect_jump_is_not() -> None:
    asm = Assembler(TEXT)
    asm.emit("ff2485", DATA.to_bytes(4, "little")).label("case").emit(ret())
    known = flow(asm, segments={DATA: words(asm.labels["case"], 0)})
    assert known.state_at(asm.labels["case"]) is not None
    assert not known.has_unknown_jump
    asm = Assembler(TEXT)
    asm.emit("ffe0")
    unknown = flow(asm)
    assert unknown.all_returns() == []
    assert unknown.has_unknown_jump


def test_the_depths_of_the_stack_at_jumps_to_an_address() -> None:
    asm = Assembler(TEXT)
    asm.emit(push(EBX)).branch(JE, "end").emit(push(EBX)).jump("other").label("end").emit(pop(EBX), ret())
    asm.label("other").emit(add(ESP, 8), ret())
    found = flow(asm)
    assert found.jump_depths(asm.labels["end"]) == {SymbolicValue(ESP, -4)}
    assert found.jump_depths(asm.labels["other"]) == {SymbolicValue(ESP, -8)}


def test_push_and_ret_is_a_jump() -> None:
    asm = Assembler(TEXT)
    asm.absolute("68", "target").emit(ret()).align().label("target").emit(ret(8))
    (only,) = flow(asm).all_returns()
    assert (only.address, only.popped) == (asm.labels["target"], 8)


def test_code_is_followed_up_to_a_limit_of_instructions() -> None:
    asm = Assembler(TEXT)
    asm.emit(*["90"] * 20, ret())
    assert flow(asm).first_return() is not None
    cut = flow(asm, limit=10)
    assert cut.first_return() is None
    assert cut.is_cut_short


def test_the_least_doubtful_path_reaches_an_instruction_first() -> None:
    """One way to `join` goes through a call whose stack adjustment is a guess, the other does not."""

    def guessed(state: SymbolicState, _: Instruction) -> SymbolicState | None:
        return SymbolicState(state.registers, state.stack, doubt=1)

    asm = Assembler(TEXT)
    asm.emit(push(EBP), mov(EBP, ESP)).branch(JE, "sure").emit(push_value(1)).call("unknown").jump("join")
    asm.label("sure").emit(mov(EAX, EBX)).label("join").emit(LEAVE, ret()).label("unknown").emit("cc")
    assert flow(asm, guessed).state_at(asm.labels["join"]).doubt == 0


def test_each_instruction_is_visited_once_and_counted_once() -> None:
    asm = Assembler(TEXT)
    asm.label("loop").emit("90").branch(JE, "loop").branch(JE, "next").label("next").emit(ret())
    code = code_of(asm)
    found = ControlFlow(code, TEXT, SymbolicState(is_from_entry=True), comes_back, limit=LIMIT)
    assert len(found.all_returns()) == 1
    assert list(found.states) == [TEXT, TEXT + 1, TEXT + 7, TEXT + 13]
    assert code.work_done == 5  # both sides of the second branch are the same place


def test_the_limit_is_the_number_of_instructions() -> None:
    asm = Assembler(TEXT)
    asm.emit("90" * 10, ret())
    assert flow(asm, limit=11).first_return() is not None
    assert flow(asm, limit=10).first_return() is None
    assert not flow(asm, limit=12).is_cut_short
    assert flow(asm, limit=10).all_returns() == []


def test_the_first_return_is_the_nearest_one() -> None:
    asm = Assembler(TEXT)
    asm.branch(JE, "far").label("near").emit(ret()).label("far").emit("90", ret(4))
    found = flow(asm)
    assert len(found.all_returns()) == 2
    assert found.first_return().address == asm.labels["near"]
    assert (found.returns[0].popped, found.returns[0].state.sp) == (0, SymbolicValue(ESP, 4))
    assert flow(Assembler(TEXT).emit("ebfe")).first_return() is None


def test_code_ends_at_an_instruction_that_nothing_follows_and_at_bytes_that_are_none() -> None:
    stopped = flow(Assembler(TEXT).emit("cc", ret()))
    assert (stopped.state_at(TEXT + 1), stopped.has_unknown_jump) == (None, False)
    unknown = flow(Assembler(TEXT).emit("90", "0f0a", ret()))  # no instruction
    assert (unknown.all_returns(), unknown.has_unknown_jump) == ([], True)
    assert list(unknown.states) == [TEXT]


def test_a_jump_without_a_known_depth_says_nothing_of_it() -> None:
    def guessed(state: SymbolicState, _: Instruction) -> SymbolicState | None:
        return SymbolicState(state.registers, state.stack, doubt=1)

    asm = Assembler(TEXT)
    asm.call("unknown").jump("end").label("end").emit(ret()).label("unknown").emit("cc")
    assert flow(asm, guessed).jump_depths(asm.labels["end"]) == set()
    asm = Assembler(TEXT)
    asm.emit("0f45e0").jump("end").label("end").emit(ret())  # cmovne esp, eax
    found = flow(asm)
    assert found.jump_depths(asm.labels["end"]) == set()
    (only,) = found.returns
    assert (only.target, only.state.sp) == (None, None)
    assert found.jump_depths(TEXT) == set()
