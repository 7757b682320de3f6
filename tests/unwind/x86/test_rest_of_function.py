# SPDX-License-Identifier: Apache-2.0
"""The caller of a frame, from the code that is still to run."""

from __future__ import annotations

from tests.unwind.x86.assemble import EBP, EBX, ESP, JE, LEAVE, Assembler, add, mov, pop, push, ret, sub
from tests.unwind.x86.machine import TEXT, code_of, words
from throwstack.core.registers import Arch, Registers
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.rest_of_function import RestOfFunction

LOW = 0x12FF00
RETURN = 0x00401800


def program() -> Assembler:
    asm = Assembler(TEXT)
    asm.emit(push(EBP), mov(EBP, ESP), push(EBX), sub(ESP, 8)).call("callee").label("after call")
    asm.emit(add(ESP, 8)).label("in epilogue").emit(pop(EBX), LEAVE, ret(4)).align()
    asm.label("callee").emit(ret()).align()
    asm.label("loops").emit("ebfe").align()
    asm.label("may branch").branch(JE, "in epilogue").emit(ret())
    return asm


def rest(asm: Assembler, *stack: int, **options) -> RestOfFunction:
    code = code_of(asm, segments={LOW: words(*stack)}, **options)
    return RestOfFunction(code, Callees(code))


def place(ip: int, sp: int = LOW, call_sp: int | None = None, **options) -> Place:
    registers = {"eip": ip, "esp": sp, "ebp": options.pop("ebp", LOW + 12)}
    return Place(Registers.named(Arch.X86, registers), call_sp, **options)


def test_the_rest_of_a_function_gives_its_caller_without_a_function_start() -> None:
    asm = program()
    found = rest(asm, 0, 0, 0xB, 0x12FF80, RETURN).caller(place(asm.labels["after call"], call_sp=LOW))
    assert (found.slot, found.return_address, found.popped) == (LOW + 16, RETURN, 4)
    assert (found.gpr[EBX], found.gpr[EBP], found.gpr[ESP]) == (0xB, 0x12FF80, LOW + 24)
    assert found.doubt == 0


def test_the_rest_of_an_epilogue_gives_the_caller() -> None:
    asm = program()
    found = rest(asm, 0xB, 0x12FF80, RETURN).caller(place(asm.labels["in epilogue"], ebp=LOW + 4))
    assert (found.slot, found.gpr[EBX]) == (LOW + 8, 0xB)


def test_an_esp_that_is_not_exact_makes_the_caller_doubtful() -> None:
    """It is not known what the callee removed, so that the return address may be one or two words further up."""
    asm = Assembler(TEXT)
    asm.emit(add(ESP, 8), ret())
    found = rest(asm, 0, 0, RETURN)
    assert found.caller(place(TEXT, call_sp=LOW)).doubt == 0
    assert found.caller(place(TEXT, call_sp=LOW, is_sp_exact=False)).doubt == 1


def test_a_function_that_never_returns_gives_no_caller() -> None:
    asm = program()
    assert rest(asm).caller(place(asm.labels["loops"])) is None


def test_a_return_address_at_the_start_of_a_function_is_not_followed() -> None:
    """A call that never returns was the last instruction of its function; the next one begins there."""
    asm = program()
    here = place(asm.labels["callee"], call_sp=LOW)
    assert rest(asm, RETURN, functions=("callee",)).caller(here) is None
    assert rest(asm, RETURN).caller(here) is not None


def test_code_without_branches_and_calls_is_straight() -> None:
    asm = program()
    found = rest(asm)
    assert found.is_straight(asm.labels["in epilogue"])
    assert not found.is_straight(asm.labels["may branch"])
    assert not found.is_straight(asm.labels["loops"])


def test_a_return_address_in_a_function_that_a_helper_builds() -> None:
    asm = Assembler(TEXT)
    asm.call("ordinary").label("after ordinary").call("helper").label("after helper").emit(ret()).align()
    asm.label("ordinary").emit(ret()).align()
    asm.label("helper").emit("59", LEAVE, "51", ret())  # pop ecx; leave; push ecx; ret
    found = rest(asm)
    assert found.is_past_helper(asm.labels["after helper"])
    assert not found.is_past_helper(asm.labels["after ordinary"])
