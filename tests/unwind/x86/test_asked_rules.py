# SPDX-License-Identifier: Apache-2.0
"""Which rules are asked for a frame, and where they stop to look."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EBP, EBX, ESP, LEAVE, Assembler, mov, pop, push, ret, sub
from tests.unwind.x86.machine import TEXT
from tests.unwind.x86.rules_of import HEAP, LOW, STACK, Executable, after_call_in, lost, program, rules
from throwstack.core.registers import Arch, Registers
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.candidates import Rule
from throwstack.unwind.x86.return_address import Fit


def test_a_return_address_of_zero_or_after_no_call_ends_no_search_for_starts() -> None:
    """Of two guessed starts the nearer one leads to no return address; the other one does."""
    asm = Assembler(TEXT)
    asm.label("caller").call("function").label("after function").emit(ret()).align()
    asm.label("function").emit(push(EBP), mov(EBP, ESP), sub(ESP, 8), "ffd0").label("after call").emit("837d0800")
    asm.branch(0x85, "out").emit("8bff558bec").label("block").emit("ffd0").label("in block").emit("ebfe")
    asm.label("out").emit(LEAVE, ret()).align()
    engine = rules(asm, 0, 0, 0, LOW + 0x80, asm.labels["after function"], has_symbols=False)
    place = Place(Registers.named(Arch.X86, {"eip": asm.labels["in block"], "esp": LOW + 8}), LOW + 8)
    found = [(start, caller.return_address) for start, caller in engine._by_guessed_start(place)]
    assert found[0] == (asm.labels["block"] - 5, LOW + 0x80)
    assert found[-1][0] == asm.labels["function"]


def test_the_search_for_starts_ends_with_the_first_that_leads_to_a_return_address() -> None:
    """`entry`, further away, jumps into function: it would lead to the same return address."""
    asm = Assembler(TEXT)
    asm.label("caller").call("entry").call("function").label("after function").emit(ret()).align()
    asm.label("entry").jump("body").align()
    asm.label("function").label("body").emit(push(EBP), mov(EBP, ESP), "ffd0").label("after call").emit("ebfe")
    stack = LOW + 0x80, asm.labels["after function"]
    found = rules(asm, *stack, has_symbols=False)._by_guessed_start(after_call_in(asm))
    assert [start for start, _ in found] == [asm.labels["function"]]


def test_starts_are_looked_for_from_the_call_or_from_the_instruction_at_which_the_thread_was_stopped() -> None:
    """first ends with a call that never returns. second begins there, and jumps back to the `ret` before third."""
    asm = Assembler(TEXT)
    asm.label("caller").call("first").label("after first").call("second").label("after second").call("third")
    asm.emit(ret()).align().label("first").emit(push(EBX)).call("throw").label("second").emit("90").jump("shared")
    asm.label("shared").emit(ret()).label("third").jump("shared").label("throw").emit("ebfe")

    def starts(label: str, *stack: int, **options: int) -> list[int]:
        registers = Registers.named(Arch.X86, {"eip": asm.labels[label], "esp": LOW})
        engine = rules(asm, *stack, has_symbols=False)
        return [start for start, _ in engine._by_guessed_start(Place(registers, **options))]

    assert starts("second", 0xB, asm.labels["after first"], call_sp=LOW) == [asm.labels["first"]]
    assert starts("second", asm.labels["after second"]) == [asm.labels["second"]]
    assert starts("shared", asm.labels["after second"]) == [asm.labels["second"]]


@pytest.mark.parametrize(
    ("heap", "rule", "doubt"),
    [
        ("90c3", Rule.EPILOGUE, 0),
        ("750090c3", Rule.FORWARD, 0),
        ("ff165058c3", Rule.FORWARD, 1),  # call [esi]; push eax; pop eax: what the call removes is a guess
    ],
)
def test_a_hook_may_have_led_to_code_outside_the_images_that_returns_there(heap, rule, doubt) -> None:
    """`function` was called, and a hook in it has jumped to private memory. The code there is followed to its `ret`."""
    asm = program()
    place = Place(Registers.named(Arch.X86, {"eip": HEAP, "esp": LOW}))
    found = rules(asm, asm.labels["after function"], heap=heap).caller(place, STACK, 0, ())
    expected = None if doubt else (rule, Fit.DIVERTED, LOW)
    assert (found and (found.rule, found.fit, found.caller.slot)) == expected


@pytest.mark.parametrize("knows_regions", [False, True])
@pytest.mark.parametrize("eax", [HEAP, HEAP + 4])
def test_a_call_of_memory_outside_the_images_was_made_with_the_registers_of_the_place(eax, knows_regions) -> None:
    """`call eax` has led to data, or to code that cannot be decoded. By another eax it led elsewhere."""
    asm = lost()
    place = Place(Registers.named(Arch.X86, {"eip": HEAP, "esp": LOW, "eax": eax}))
    regions = Executable() if knows_regions else None
    engine = rules(asm, asm.labels["after register"], heap="0f0a", regions=regions)
    candidates = []
    found = engine._best(place, STACK, 0, (), candidates)
    nowhere = next(each for each in candidates if each.rule is Rule.CALLED_NOWHERE)
    assert nowhere.fit is (Fit.CONFIRMED if eax == HEAP else Fit.CONTRADICTED)
    assert nowhere.note == ("" if knows_regions else "the thread is not in code")
    assert found.rule is (Rule.CALLED_NOWHERE if eax == HEAP else Rule.SCAN)


def test_a_scan_ends_at_a_return_address_of_the_function() -> None:
    asm = lost()
    stack = 0, asm.labels["after register"], asm.labels["after function"], asm.labels["after function"]
    found = rules(asm, *stack)._by_scan(after_call_in(asm), STACK)
    assert [(each.caller.slot, each.fit) for each in found] == [
        (LOW + 4, Fit.POSSIBLE),
        (LOW + 8, Fit.CALLS_FUNCTION),
    ]


@pytest.mark.parametrize("caller", ["after function", "in the heap"])
def test_a_frame_pointer_to_a_believed_return_address_needs_no_scan(caller) -> None:
    """Below the pair at ebp is what an earlier call of the function has left."""
    asm = lost()
    word = HEAP + 2 if caller == "in the heap" else asm.labels[caller]
    engine = rules(asm, 0, asm.labels["after function"], 0, 0, word, heap="ffd090")
    candidates = []
    found = engine._best(after_call_in(asm, registers={"ebp": LOW + 12}), STACK, 0, (), candidates)
    assert {each.rule for each in candidates} == {Rule.FRAME_POINTER}
    assert (found.caller.slot, found.fit) == (LOW + 16, Fit.OUTSIDE if word > HEAP else Fit.CALLS_FUNCTION)


def test_in_code_the_frame_pointer_is_not_asked_whether_a_nearer_caller_leads_to_it() -> None:
    """outer has called plain by a pointer, and then function. In function's locals is what plain's call has left."""
    asm = lost().label("outer").emit(push(EBP), mov(EBP, ESP), "ffd0").label("back in outer").emit(LEAVE, ret()).align()
    asm.label("plain").emit(push(EBX), sub(ESP, 8), "ffd0").label("back in plain").emit("83c408", pop(EBX), ret())
    stack = 7, asm.labels["back in plain"], 0, 0, LOW + 0x80, asm.labels["back in outer"]
    stopped = Place(after_call_in(asm, registers={"ebp": LOW + 16}).registers)
    assert rules(asm, *stack).caller(stopped, STACK, 0, ()).caller.slot == LOW + 20
