# SPDX-License-Identifier: Apache-2.0
"""How well a word of the stack serves as the return address of a frame."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EBX, ECX, Assembler, pop, push, ret, sub
from tests.unwind.x86.machine import BASE, DATA, TEXT, TEXT_SIZE, code_of, header_page, images_of, symbols_of, words
from throwstack.core.memory import PAGE_SIZE, SegmentSource
from throwstack.core.registers import Arch, Registers
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.code import Code
from throwstack.unwind.x86.function_starts import FunctionStarts
from throwstack.unwind.x86.prologue import Prologues
from throwstack.unwind.x86.return_address import Fit, ReturnAddresses

LOW = 0x12FF00


def program() -> Assembler:
    asm = Assembler(TEXT)
    asm.label("caller").call("function").label("after function").call("other").label("after other")
    asm.emit("ffd0").label("after register").emit("90").label("after nop").emit(ret()).align()
    asm.label("thunk caller").call("thunk").label("after thunk").emit(ret()).align()
    asm.label("thunk").jump("function").align()
    asm.label("function").emit(push(EBX)).label("inside").emit(pop(EBX), ret()).align()
    asm.label("other").emit(ret())
    return asm


def checks(asm: Assembler, **options) -> ReturnAddresses:
    code = code_of(asm, segments={LOW: bytes(64)}, **options)
    return ReturnAddresses(code, Prologues(code, Callees(code)), FunctionStarts(code))


def fit(asm: Assembler, name: str, slot: int = LOW + 4, **options) -> Fit:
    place = Place(Registers.named(Arch.X86, {"eip": asm.labels["inside"], "esp": LOW}))
    address = asm.labels[name]
    return checks(asm, **options).fit(place, slot, address)


def test_after_a_call_of_the_function_at_its_place_it_is_confirmed() -> None:
    asm = program()
    assert fit(asm, "after function") is Fit.CONFIRMED
    # `push ebx` has been executed: the return address is at esp+4, and another slot has what an earlier call left
    assert fit(asm, "after function", LOW + 8) is Fit.CONTRADICTED


def test_a_call_through_a_thunk_leads_to_the_function() -> None:
    assert fit(program(), "after thunk") is Fit.CONFIRMED


def test_after_a_call_of_something_else_it_is_contradicted() -> None:
    assert fit(program(), "after other") is Fit.CONTRADICTED


def test_after_a_call_through_a_register_it_is_possible() -> None:
    assert fit(program(), "after register") is Fit.POSSIBLE


def test_an_address_in_code_without_a_call_before_it_is_no_return_address() -> None:
    assert fit(program(), "after nop") is Fit.NOT_A_RETURN


def test_a_word_outside_code_is_no_return_address_and_zero_may_be_the_last_one() -> None:
    asm = program()
    place = Place(Registers.named(Arch.X86, {"eip": asm.labels["inside"], "esp": LOW}))
    assert checks(asm).fit(place, LOW + 4, DATA + 4) is Fit.NOT_CODE
    assert checks(asm).fit(place, LOW + 4, 0) is Fit.OUTERMOST


def test_a_handler_that_no_code_leads_to_belongs_to_its_function_by_the_symbols() -> None:
    """A funclet of `function`: its own code does not reach it, only the symbol table says whose it is."""
    asm = Assembler(TEXT)
    asm.label("caller").call("function").label("after function").call("other").label("after other").emit(ret()).align()
    asm.label("other").emit(ret()).align().label("function").emit(ret()).label("inside").emit(push(EBX), ret())
    functions = ("caller", "other", "function")
    assert fit(asm, "after function", functions=functions) is Fit.CALLS_FUNCTION
    assert fit(asm, "after other", functions=functions) is Fit.CONTRADICTED


@pytest.mark.parametrize("called", ["adjustor thunk", "function"])
def test_at_a_place_without_code_any_call_can_have_led_there(called: str) -> None:
    """The thunk's target was freed; the function's return address was overwritten."""
    asm = Assembler(TEXT)
    asm.label("caller").call(called).label("after call").emit(ret()).align()
    asm.label("adjustor thunk").emit(sub(ECX, 8), "ff2500000041").align()
    asm.label("function").emit(push(EBX), pop(EBX), ret())
    freed, readable = (Registers.named(Arch.X86, {"eip": ip, "esp": LOW}) for ip in (0x6B000040, LOW + 32))
    assert checks(asm).fit(Place(freed), LOW, asm.labels["after call"]) is Fit.POSSIBLE
    assert checks(asm).fit(Place(readable), LOW, asm.labels["after call"]) is Fit.DIVERTED


def test_the_calls_before_an_address() -> None:
    asm = program()
    found = checks(asm)
    (site,) = found.calls_before(asm.labels["after function"])
    assert (site.address, site.target) == (asm.labels["caller"], asm.labels["function"])
    assert [site.target for site in found.calls_before(asm.labels["after register"])] == [None]
    assert found.calls_before(asm.labels["after nop"]) == ()
    assert found.calls_before(DATA) == ()


def test_bytes_of_a_call_to_an_address_outside_code_are_no_call() -> None:
    asm = Assembler(TEXT)
    asm.emit("e800000010").label("here").emit(ret())
    assert checks(asm).calls_before(asm.labels["here"]) == ()


def called(code: str, *stack: int, stack_at: int = LOW, **registers: int) -> set[int]:
    """Where the call `code`, made with `registers`, can have gone, on a stack with words from `stack_at` on."""
    asm = Assembler(TEXT).emit(code).label("after")
    found = code_of(asm, segments={stack_at: words(*stack)})
    checker = ReturnAddresses(found, Prologues(found, Callees(found)), FunctionStarts(found))
    place = Place(Registers.named(Arch.X86, {"eip": 0x7000000, "esp": LOW, **registers}))
    return checker.targets(asm.labels["after"], place)


@pytest.mark.parametrize(
    ("code", "registers", "expected"),
    [
        ("ffd0", {"eax": 0x7000000}, {0x7000000}),  # call eax
        ("ffd0", {}, set()),  # which is not known
        ("ff1424", {}, {0xB}),  # call [esp], before the call has pushed its return address
        ("ff542404", {}, {0xC}),  # call [esp+4]
        ("ff548804", {"eax": LOW, "ecx": 2}, {0xD}),  # call [eax+ecx*4+4]
        ("ff548804", {"eax": LOW}, set()),
        ("ff548804", {"ecx": 2}, set()),
        ("ff14c508ff1200", {"eax": 1}, {0xE}),  # call [eax*8+12FF08h]
        ("ff1508ff1200", {}, {0xC}),  # call [12FF08h]
        ("ff50fc", {"eax": LOW + 8}, {0xB}),  # call [eax-4]
        ("ff10", {"eax": 0x7000000}, set()),  # a page that is not there
        ("64ff1508ff1200", {}, {0xC}),  # call fs:[12FF08h], which may be read without its prefix
    ],
)
def test_where_a_call_goes_is_computed_with_the_registers_of_the_place(code, registers, expected) -> None:
    assert called(code, 0xA, 0xB, 0xC, 0xD, 0xE, **registers) == expected


def test_the_place_that_a_call_has_reached_is_one_of_its_targets() -> None:
    asm = program()
    gpr = {"eip": asm.labels["function"], "esp": LOW, "eax": asm.labels["other"]}
    place, found = Place(Registers.named(Arch.X86, gpr)), checks(asm)
    assert found.calls_place(asm.labels["after function"], place)
    assert not found.calls_place(asm.labels["after other"], place)
    assert not found.calls_place(asm.labels["after register"], place)
    assert found.targets(asm.labels["after register"], place) == {asm.labels["other"]}
    assert found.targets(asm.labels["after function"], place) == {asm.labels["function"]}


def test_a_word_is_a_return_address_after_a_call_in_code() -> None:
    asm = program()
    found = checks(asm)
    assert found.is_return_address(asm.labels["after function"])
    assert not found.is_return_address(asm.labels["after nop"])
    assert not found.is_return_address(DATA)
    outside = code_of(asm, segments={0x5000000: bytes.fromhex("ffd090")})
    checker = ReturnAddresses(outside, Prologues(outside, Callees(outside)), FunctionStarts(outside))
    assert not checker.is_return_address(0x5000002)  # after a call, where code may be
    place = Place(Registers.named(Arch.X86, {"eip": asm.labels["inside"], "esp": LOW}))
    assert checker.fit(place, LOW + 4, 0x5000002) is Fit.OUTSIDE
    assert checker.fit(place, LOW + 4, 0x5000003) is Fit.NOT_CODE  # after no call


def test_code_before_a_return_address_that_is_not_there_can_be_a_call() -> None:
    """The call may begin in the page before, which is absent."""
    asm = Assembler(TEXT)
    asm.label("inside").emit("90" * (PAGE_SIZE + 16))
    text = asm.finish()
    images = images_of(SegmentSource({BASE: header_page(), TEXT + PAGE_SIZE: text[PAGE_SIZE:]}))
    code = Code(images, symbols_of(images, None))
    checker = ReturnAddresses(code, Prologues(code, Callees(code)), FunctionStarts(code))
    place = Place(Registers.named(Arch.X86, {"eip": TEXT + PAGE_SIZE + 12, "esp": LOW}))
    fits = {offset: checker.fit(place, LOW, TEXT + PAGE_SIZE + offset) for offset in (0, 6, 7)}
    assert fits == {0: Fit.UNREADABLE, 6: Fit.UNREADABLE, 7: Fit.NOT_A_RETURN}
    assert checker.fit(place, LOW, TEXT) is Fit.NOT_CODE  # the byte before it is in no section of code


def test_no_frame_that_has_called_returns_into_a_system_call_stub() -> None:
    asm = program().align()
    asm.label("stub").emit("b807010000", "ba0003fe7f", "ffd2").label("in stub").emit(ret(8))
    found, gpr = checks(asm), {"eip": asm.labels["inside"], "esp": LOW}
    assert found.fit(Place(Registers.named(Arch.X86, gpr)), LOW + 4, asm.labels["in stub"]) is Fit.POSSIBLE
    called_from = Place(Registers.named(Arch.X86, gpr), call_sp=LOW)
    assert found.fit(called_from, LOW + 4, asm.labels["in stub"]) is Fit.CONTRADICTED
    assert found.is_in_stub(asm.labels["in stub"])
    assert not found.is_in_stub(asm.labels["after function"])


def test_the_best_reading_of_the_bytes_before_an_address_counts() -> None:
    """`ff 15 … ff d0` may be a call through an import or, in its last two bytes, `call eax`."""
    asm = Assembler(TEXT)
    asm.emit("ff150010ffd0").label("after").emit(ret()).align().label("inside").emit(ret())
    code = code_of(asm, segments={0xD0FF1000: words(TEXT + 6)})
    checker = ReturnAddresses(code, Prologues(code, Callees(code)), FunctionStarts(code))
    place = Place(Registers.named(Arch.X86, {"eip": asm.labels["inside"], "esp": LOW}))
    assert [site.target for site in checker.calls_before(asm.labels["after"])] == [TEXT + 6, None]
    assert checker.fit(place, LOW, asm.labels["after"]) is Fit.POSSIBLE


@pytest.mark.parametrize(
    ("jump", "expected"),
    [("ffe0", Fit.POSSIBLE), ("c3", Fit.CONTRADICTED)],
    ids=["jumps on", "returns"],
)
def test_what_a_function_with_an_unknown_jump_contains_is_open(jump: str, expected: Fit) -> None:
    asm = Assembler(TEXT)
    asm.call("function").label("after").emit(ret()).align().label("function").emit(jump).align()
    asm.label("other").emit(ret(), "90").label("inside").emit(ret())
    assert fit(asm, "after") is expected
    assert fit(asm, "after", functions=("function", "other")) is expected


def test_a_return_address_after_a_call_of_the_nearest_start_is_possible() -> None:
    """Without symbols: the code of the function does not lead to the place, and no other start is nearer."""
    asm = Assembler(TEXT)
    asm.call("function").label("after").emit(ret()).align().label("function").emit(ret(), "90").label("inside")
    asm.emit(ret())
    assert fit(asm, "after") is Fit.POSSIBLE
    here = Place(Registers.named(Arch.X86, {"eip": asm.labels["inside"], "esp": LOW}), call_sp=LOW)
    assert checks(asm).fit(here, LOW + 4, asm.labels["after"]) is Fit.POSSIBLE


def test_a_caller_that_cannot_be_computed_leaves_that_the_function_was_called() -> None:
    asm = Assembler(TEXT)
    asm.call("function").label("after").emit(ret()).align().label("function").emit("890424").label("inside")
    asm.emit(ret())
    assert fit(asm, "after") is Fit.CALLS_FUNCTION  # its return address was overwritten
    doubtful = Assembler(TEXT)
    doubtful.call("function").label("after").emit(ret()).align().label("function").emit("6a01ff16").label("inside")
    doubtful.emit("c9c3")
    assert fit(doubtful, "after") is Fit.CALLS_FUNCTION  # esp is a guess since the call


def test_a_call_is_in_code_from_its_first_byte_to_its_last() -> None:
    """`call eax` across the start and across the end of .text."""
    headers = header_page()[:-1] + b"\xff"
    asm = Assembler(TEXT).emit("d0", "90" * (TEXT_SIZE - 2), "ff")
    code = code_of(asm, segments={BASE: headers, DATA: b"\xd0"})
    checker = ReturnAddresses(code, Prologues(code, Callees(code)), FunctionStarts(code))
    assert checker.calls_before(TEXT + 1) == ()
    assert checker.calls_before(DATA + 1) == ()


def test_a_call_may_be_the_last_instruction_of_its_section() -> None:
    asm = Assembler(TEXT).emit("c3", "90" * (TEXT_SIZE - 3), "ffd0")
    code = code_of(asm)
    checker = ReturnAddresses(code, Prologues(code, Callees(code)), FunctionStarts(code))
    place = Place(Registers.named(Arch.X86, {"eip": TEXT, "esp": LOW}))
    assert checker.is_return_address(DATA)
    assert checker.fit(place, LOW, DATA) is Fit.POSSIBLE


def test_a_word_whose_byte_before_is_outside_the_images_is_judged_by_that() -> None:
    code = code_of(Assembler(TEXT).emit("c3"), segments={BASE - PAGE_SIZE: bytes(PAGE_SIZE)})
    checker = ReturnAddresses(code, Prologues(code, Callees(code)), FunctionStarts(code))
    place = Place(Registers.named(Arch.X86, {"eip": TEXT, "esp": LOW}))
    assert checker.fit(place, LOW, BASE) is Fit.NOT_CODE


def test_a_return_address_at_the_start_of_the_next_function_belongs_to_the_one_before() -> None:
    """A function ends with a call that never returns, and no code leads to that call."""
    asm = Assembler(TEXT)
    asm.call("function").label("after").emit(ret()).align().label("function").emit(ret(), "90").call("throw")
    asm.label("inside").emit("8bff558bec", ret()).align().label("throw").emit("cc")
    registers = Registers.named(Arch.X86, {"eip": asm.labels["inside"], "esp": LOW})
    assert checks(asm).fit(Place(registers, LOW), LOW, asm.labels["after"]) is Fit.POSSIBLE
    assert checks(asm).fit(Place(registers), LOW, asm.labels["after"]) is Fit.CONTRADICTED


def test_the_last_byte_before_the_next_start_belongs_to_the_function_before() -> None:
    asm = Assembler(TEXT)
    asm.call("function").label("after").emit(ret()).align().label("function").emit(ret()).label("inside").emit("90")
    asm.emit("8bff558bec", ret()).align()
    assert fit(asm, "after") is Fit.POSSIBLE
