# SPDX-License-Identifier: Apache-2.0
"""All rules together: which of them answers for a frame, and what is filled in from the others."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EBP, EBX, ESI, ESP, Assembler, ret
from tests.unwind.x86.machine import BASE, TEXT, Records
from tests.unwind.x86.rules_of import LOW, STACK, after_call_in, lost, program, rules
from throwstack.core.frames import StackBounds, Trust
from throwstack.core.registers import Arch, Registers
from throwstack.names.frame_records import FrameData
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.candidates import Rule
from throwstack.unwind.x86.return_address import Fit


def frame(asm: Assembler, **registers: int) -> Place:
    """`function`, which has called `inner`."""
    named = Registers.named(Arch.X86, {"eip": asm.labels["after inner"], "esp": LOW, **registers})
    return Place(named, call_sp=LOW)


def stack_of(asm: Assembler) -> tuple[int, ...]:
    return 0, 0, 0x51, LOW + 0x80, asm.labels["after function"]  # two locals, esi, ebp, return address


def record(asm: Assembler, program: str, **sizes: int) -> Records:
    fields = dict.fromkeys(("prologue_size", "parameters_size", "saved_registers_size", "locals_size"), 0)
    begin = asm.labels["function"] - BASE
    return Records([FrameData(begin, 0x20, **{**fields, **sizes}, program=program, uses_base_pointer=True)])


def test_the_start_of_the_function_answers_where_symbols_name_it() -> None:
    asm = program()
    found = rules(asm, *stack_of(asm)).caller(frame(asm, ebp=LOW + 12), STACK, 0, ())
    assert (found.rule, found.fit, found.trust) == (Rule.FUNCTION, Fit.CONFIRMED, Trust.PROLOGUE)
    assert (found.caller.slot, found.caller.gpr[ESI]) == (LOW + 16, 0x51)


def test_the_rest_of_the_function_answers_without_symbols() -> None:
    asm = program()
    found = rules(asm, *stack_of(asm), has_symbols=False).caller(frame(asm, ebp=LOW + 12), STACK, 0, ())
    assert found.rule is Rule.FORWARD
    assert found.caller.slot == LOW + 16


def test_frame_data_is_believed_and_what_it_does_not_mention_comes_from_the_code() -> None:
    asm = program()
    program_text = "$T0 $ebp = $eip $T0 4 + ^ = $ebp $T0 ^ = $esp $T0 8 + ="
    records = record(asm, program_text, saved_registers_size=4)
    found = rules(asm, *stack_of(asm), records=records).caller(frame(asm, ebp=LOW + 12, ebx=7), STACK, 0, ())
    assert (found.rule, found.trust) == (Rule.FRAME_DATA, Trust.CFI)
    assert (found.caller.gpr[EBP], found.caller.gpr[ESI], found.caller.gpr[EBX]) == (LOW + 0x80, 0x51, 7)


def test_frame_data_that_leads_to_no_return_address_loses_to_the_code() -> None:
    asm = program()
    wrong = record(asm, "$eip $esp 8 + ^ = $esp $esp 12 + =")  # the saved esi
    found = rules(asm, *stack_of(asm), records=wrong).caller(frame(asm, ebp=LOW + 12), STACK, 0, ())
    assert found.rule is not Rule.FRAME_DATA
    assert found.caller.slot == LOW + 16


def test_a_call_through_null_leaves_only_its_return_address() -> None:
    asm = Assembler(TEXT)
    asm.label("caller").emit("ffd0").label("after call").emit(ret())
    place = Place(Registers.named(Arch.X86, {"eip": 0, "esp": LOW, "ebx": 7}))
    found = rules(asm, asm.labels["after call"]).caller(place, STACK, 0, ())
    assert found.rule is Rule.CALLED_NOWHERE
    assert (found.caller.slot, found.caller.gpr[EBX], found.caller.gpr[ESP]) == (LOW, 7, LOW + 4)


def test_an_exception_registration_leads_to_a_frame_pointer_that_was_lost() -> None:
    """A function with __try keeps its registration 10h bytes below the saved ebp. Its code cannot be followed here."""
    asm = Assembler(TEXT)
    asm.label("caller").call("function").label("after function").emit(ret()).align()
    asm.label("function").emit("ffe0").label("after call").emit("ebfe")  # jmp eax, and an endless loop
    registration = LOW + 8
    stack = 0, 0, 0xFFFFFFFF, 0x401234, 0, 0, LOW + 0x80, asm.labels["after function"]
    lost = Place(Registers.named(Arch.X86, {"eip": asm.labels["after call"], "esp": LOW}), call_sp=LOW)
    with_chain = rules(asm, *stack).caller(lost, STACK, 0, (registration,))
    assert (with_chain.rule, with_chain.caller.slot) == (Rule.REGISTRATION, registration + 0x14)
    assert with_chain.caller.gpr[EBP] == LOW + 0x80
    without = rules(asm, *stack).caller(lost, STACK, 0, ())
    assert (without.rule, without.caller.slot) == (Rule.SCAN, registration + 0x14)
    assert without.caller.gpr[EBP] is None


def test_a_stack_without_return_addresses_gives_no_caller() -> None:
    asm = program()
    outside = Place(Registers.named(Arch.X86, {"eip": 0x500000, "esp": LOW + 4}), call_sp=LOW)
    assert rules(asm, 1, 2, 3).caller(outside, STACK, 0, ()) is None


def test_the_place_of_a_caller_knows_whether_its_stack_pointer_is_exact() -> None:
    asm = program()
    engine = rules(asm)
    gpr = tuple(LOW + 8 if number == ESP else None for number in range(8))
    removed = engine.next_place(Caller(LOW, asm.labels["after function"], LOW + 4, 4, gpr))
    assert (removed.call_sp, removed.registers.sp, removed.is_sp_exact) == (LOW + 4, LOW + 8, True)
    unknown = engine.next_place(Caller(LOW, asm.labels["after function"], LOW + 4, None, gpr))
    assert not unknown.is_sp_exact


def scanned(slot: int, word: int, popped: int | None, bp: int | None = None) -> Caller:
    return Caller(slot, word, slot + 4, popped, (None, None, None, None, slot + 4 + (popped or 0), bp, None, None))


@pytest.mark.parametrize(("after_call", "popped"), [("83c408c20800", 8), ("ebfe", None)])
def test_what_the_scan_finds_has_no_register_but_esp(after_call, popped) -> None:
    asm = lost(after_call)
    stack = 0, 0, 1, asm.labels["after function"]
    found = rules(asm, *stack).caller(after_call_in(asm), STACK, 0, ())
    assert (found.rule, found.fit) == (Rule.SCAN, Fit.CALLS_FUNCTION)
    assert found.caller == scanned(LOW + 12, asm.labels["after function"], popped)


@pytest.mark.parametrize(("registration", "distance"), [(8, 0x10), (8, 0x0C), (0, 0x10), (0, 0x0C)])
def test_the_nearest_registration_above_esp_leads_to_the_frame_pointer(registration, distance) -> None:
    asm = lost()
    words_below = [0] * ((registration + distance) // 4)
    found = rules(asm, *words_below, LOW + 0x80, asm.labels["after function"]).caller(
        after_call_in(asm), STACK, 0, (LOW - 8, LOW + registration, LOW + 0x40)
    )
    slot = LOW + registration + distance + 4
    assert found.rule is Rule.REGISTRATION
    assert found.caller == scanned(slot, asm.labels["after function"], None, LOW + 0x80)


def test_a_registration_leads_only_to_a_return_address_of_the_function() -> None:
    asm = lost()
    stack = 0, 0, 0, 0, LOW + 0x80, asm.labels["after register"]
    found = rules(asm, *stack).caller(after_call_in(asm), STACK, 0, (LOW,))
    assert (found.rule, found.caller.gpr[EBP]) == (Rule.SCAN, None)
    unreadable = rules(asm, *stack).caller(after_call_in(asm), STACK, 0, (LOW + 0x2000,))
    assert unreadable.rule is Rule.SCAN


def test_records_are_named_by_what_they_are_and_where_the_frame_is() -> None:
    """FPO_DATA has no program. At an instruction that was interrupted a record is believed less."""
    asm = lost()
    returns = asm.labels["after function"]
    program_text = "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + ="
    called, stopped = after_call_in(asm), Place(after_call_in(asm).registers)
    past_helper = after_call_in(asm, is_past_helper=True)
    for place, expected in ((called, Rule.FPO), (stopped, Rule.RECORD_HERE), (past_helper, Rule.RECORD_HERE)):
        found = rules(asm, 0, returns, records=record(asm, "", locals_size=4)).caller(place, STACK, 0, ())
        assert (found.rule, found.note, found.has_program) == (expected, "", False)
        with_program = rules(asm, 0, returns, records=record(asm, program_text, locals_size=4))
        found = with_program.caller(place, STACK, 0, ())
        named = Rule.FRAME_DATA if expected is Rule.FPO else expected
        assert (found.rule, found.note, found.has_program) == (named, "", True)
    searched = rules(asm, 0, returns, records=record(asm, program_text)).caller(called, STACK, 0, ())
    assert (searched.rule, searched.has_program) == (Rule.FRAME_DATA_SEARCH, False)
    assert searched.note == "1 words above the recorded place"


def test_the_place_at_which_a_thread_was_stopped_is_not_where_its_stub_returns_to() -> None:
    """WoW64 up to Windows 7: the return address of the switch to 64-bit code is still on the stack."""
    asm = lost("90c3")
    stack = asm.labels["after call"], asm.labels["after function"]
    data = record(asm, "$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =")
    found = rules(asm, *stack, records=data)
    stopped = Place(after_call_in(asm).registers)
    rules_tried = [rule for rule, _, _ in found._answers(stopped, STACK, found.record(stopped), 0)]
    slots = [caller.slot for rule, caller, _ in found._answers(stopped, STACK, found.record(stopped), 0)]
    assert Rule.RECORD_HERE not in rules_tried
    assert slots[0] == LOW + 4
    called = list(found._answers(after_call_in(asm), STACK, found.record(after_call_in(asm)), 0))
    assert (called[0][0], called[0][1].slot) == (Rule.FRAME_DATA, LOW)


def test_a_thread_that_is_not_in_code_is_said_to_be_there() -> None:
    asm = Assembler(TEXT)
    asm.label("caller").emit("ffd0").label("after call").emit(ret())
    place = Place(Registers.named(Arch.X86, {"eip": 0, "esp": LOW}))
    found = rules(asm, asm.labels["after call"]).caller(place, STACK, 0, ())
    assert (found.rule, found.note) == (Rule.CALLED_NOWHERE, "the thread is not in code")
    in_code = Place(Registers.named(Arch.X86, {"eip": asm.labels["after call"], "esp": LOW}))
    found = rules(asm, asm.labels["after call"]).caller(in_code, STACK, 0, ())
    assert found.rule is not Rule.CALLED_NOWHERE
    called = Place(Registers.named(Arch.X86, {"eip": 0, "esp": LOW + 4}), LOW)
    assert rules(asm, asm.labels["after call"]).caller(called, STACK, 0, ()).rule is Rule.SCAN


def test_a_frame_pointer_below_esp_leads_to_no_caller() -> None:
    """What is below esp has been left: a pair there is that of a frame that has returned."""
    asm = lost()
    stack = LOW + 0x80, asm.labels["after function"], 0, 0, 1, 1
    place = after_call_in(asm, LOW + 16, registers={"ebp": LOW})
    assert rules(asm, *stack).caller(place, STACK, 0, ()) is None
    stopped = Place(place.registers)
    assert rules(asm, *stack).caller(stopped, STACK, 0, ()) is None


def test_a_thread_that_is_nowhere_and_has_no_stack_has_no_caller() -> None:
    place = Place(Registers.named(Arch.X86, {"eip": 0, "esp": LOW + 0x2000}))
    assert rules(lost(), 1).caller(place, StackBounds(LOW, LOW + 0x4000), 0, ()) is None


@pytest.mark.parametrize(
    ("bp", "pair_at", "is_found"),
    [
        (0x900, 0x900, True),
        (0x904, 0x900, False),  # another word than the pair
        (0xFF8, 0xFF8, True),
    ],
)
def test_over_an_overwritten_return_address_the_saved_ebp_leads_on(bp: int, pair_at: int, *, is_found: bool) -> None:
    """The frame above is so large that the scan finds no return address in it."""
    asm = program()
    stack = [0, 0, 0, 0, 0x51, LOW + bp, *[0] * 0x400]
    stack[pair_at // 4 : pair_at // 4 + 2] = [LOW + 0xF00, asm.labels["after inner"]]
    named = {"eip": asm.labels["after inner"], "esp": LOW + 8, "ebp": LOW + 20}
    found = rules(asm, *stack).caller(Place(Registers.named(Arch.X86, named), LOW + 8), STACK, 0, ())
    assert found.gap == f"the return address at {LOW + 24:#x} was overwritten: it is 0x0"
    assert (found.rule is Rule.FRAME_POINTER) == is_found
    assert found.fit is (Fit.POSSIBLE if is_found else Fit.ZERO)
    assert found.caller.slot == (LOW + bp + 4 if is_found else LOW + 24)


def test_the_record_of_a_frame_is_that_of_the_call_which_it_has_made() -> None:
    asm = lost()
    found = rules(asm, records=record(asm, ""))
    start = asm.labels["function"]
    covered = {}
    for name, offset in (("before", -1), ("start", 0), ("last byte", 0x1F), ("end", 0x20)):
        registers = Registers.named(Arch.X86, {"eip": start + offset, "esp": LOW})
        covered[name] = found.record(Place(registers)) is not None, found.record(Place(registers, LOW)) is not None
    expected = [(False, False), (True, False), (True, True), (False, True)]
    assert list(covered.values()) == expected


def test_frame_data_that_cannot_be_computed_is_passed_over() -> None:
    asm = program()
    broken = record(asm, "$eip $esp ^ ^ ^ = + +")
    found = rules(asm, *stack_of(asm), records=broken).caller(frame(asm, ebp=LOW + 12), STACK, 0, ())
    assert (found.rule, found.caller.slot) == (Rule.FUNCTION, LOW + 16)


def test_a_return_address_has_all_of_its_bytes_on_the_stack() -> None:
    """ebp is no multiple of 4, and the three lowest bytes of the word above it are the last ones of the stack."""
    asm = lost()
    returns = asm.labels["after function"] << 8
    engine = rules(asm, 0, 0, 0, returns & 0xFFFFFFFF, returns >> 32)
    place = after_call_in(asm, registers={"ebp": LOW + 9})
    assert engine.caller(place, StackBounds(LOW, LOW + 0x14), 0, ()).caller.slot == LOW + 13
    assert engine.caller(place, StackBounds(LOW, LOW + 0x10), 0, ()) is None


def test_a_return_leads_up_the_stack() -> None:
    """push [esp+8]; ret: a jump, after which esp is what it was. No frame is left by it."""
    asm = lost("ff742408c3")
    engine = rules(asm, 0, 0, asm.labels["after register"])
    found = engine.caller(Place(after_call_in(asm).registers), STACK, 0, ())
    assert (found.rule, found.caller.slot) == (Rule.SCAN, LOW + 8)
