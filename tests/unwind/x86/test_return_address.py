# SPDX-License-Identifier: Apache-2.0
"""How well a word of the stack serves as the return address of a frame."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EBX, ECX, Assembler, pop, push, ret, sub
from tests.unwind.x86.machine import DATA, TEXT, code_of
from throwstack.core.registers import Arch, Registers
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.callees import Callees
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
