# SPDX-License-Identifier: Apache-2.0
"""The caller of a frame, from the code that is still to run."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EBP, EBX, ESP, JE, LEAVE, Assembler, add, mov, pop, push, ret, sub
from tests.unwind.x86.machine import DATA, TEXT, code_of, words
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


def rest(asm: Assembler, *stack: int, data=None, **options) -> RestOfFunction:
    code = code_of(asm, segments={LOW: words(*stack), **(data or {})}, **options)
    return RestOfFunction(code, Callees(code))


def place(ip: int, sp: int = LOW, call_sp: int | None = None, **options) -> Place:
    registers = {"eip": ip, "esp": sp, "ebp": options.pop("ebp", LOW + 12)}
    return Place(Registers.named(Arch.X86, registers), call_sp, **options)


def test_the_rest_of_a_function_gives_its_caller_without_a_function_start() -> None:
    asm = program()
    found = rest(asm, 0, 0, 0xB, 0x12FF80, RETURN).caller(place(asm.labels["after call"], call_sp=LOW))
    assert (found.slot, found.return_address, found.popped) == (LOW + 16, RETURN, 4)
    assert not found.is_in_register
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


def registers_at(ip: int = TEXT, **registers: int) -> Registers:
    return Registers.named(Arch.X86, {"eip": ip, "esp": LOW, **registers})


@pytest.mark.parametrize(("count", "is_found"), [(1999, True), (2000, False)])
def test_code_is_followed_for_2000_instructions(count: int, *, is_found: bool) -> None:
    found = rest(Assembler(TEXT).emit("90" * count, ret()), RETURN).caller(place(TEXT))
    assert (found is not None) == is_found


@pytest.mark.parametrize(("count", "is_straight"), [(31, True), (32, False)])
def test_an_epilogue_has_at_most_32_instructions(count: int, *, is_straight: bool) -> None:
    assert rest(Assembler(TEXT).emit("90" * count, ret())).is_straight(TEXT) == is_straight
    assert not rest(Assembler(TEXT).emit("0f0a", ret())).is_straight(TEXT)  # no instruction


@pytest.mark.parametrize("code", ["e800000000", "eb00", "7500", "f4", "cd2e"], ids=["call", "jmp", "jne", "hlt", "int"])
def test_an_epilogue_has_no_jump_and_no_call(code: str) -> None:
    assert rest(Assembler(TEXT).emit("90", ret())).is_straight(TEXT)
    assert not rest(Assembler(TEXT).emit(code, ret())).is_straight(TEXT)


@pytest.mark.parametrize(("distance", "is_near"), [(0xFFFF, True), (0x10000, False), (0, True), (-4, False)])
@pytest.mark.parametrize(("name", "modrm"), [("ebp", "9d"), ("esi", "9e")])
def test_a_word_may_be_stored_through_esp_and_loaded_through_another_register(distance, is_near, name, modrm) -> None:
    """mov [esp+8], ecx; mov ebx, [ebp-…]; ret: ebp points to the same part of the stack."""
    displacement = (8 - distance).to_bytes(4, "little", signed=True).hex()
    asm = Assembler(TEXT).emit("894c2408", f"8b{modrm}{displacement}", ret())
    here = Place(registers_at(**{name: LOW + distance, "ecx": 0x77}))
    assert rest(asm, RETURN, 0, 0xBAD).caller(here).gpr[EBX] == (0x77 if is_near else 0xBAD)


def test_code_is_followed_once_for_each_distance() -> None:
    asm = Assembler(TEXT).emit("90" * 9, ret())
    code = code_of(asm, segments={LOW: words(RETURN)})
    found, work = RestOfFunction(code, Callees(code)), []
    for distance in (8, 8, 12):
        before = code.work_done
        assert found.caller(place(TEXT, ebp=LOW + distance)) is not None
        work.append(code.work_done - before)
    assert work == [10, 0, 10]


def test_a_walk_does_not_follow_the_same_code_for_each_of_many_frames_of_a_large_function() -> None:
    """Each frame has 1,900 instructions and more ahead. Once 18 are followed, 200 instructions are for each other."""
    asm = Assembler(TEXT)
    for number in range(60):
        asm.emit("90").label(f"after {number}")
    asm.emit("90" * 1900, ret())
    code = code_of(asm, segments={LOW: words(RETURN)})
    found = RestOfFunction(code, Callees(code))
    for number in reversed(range(60)):
        is_found = found.caller(place(asm.labels[f"after {number}"], call_sp=LOW)) is not None
        assert is_found == (number > 41)
    assert 1 << 15 < code.work_done < (1 << 15) + 1960 + 42 * 200
    assert found.caller(place(asm.labels["after 5"], call_sp=LOW)) is None
    found.begin_walk()
    assert found.caller(place(asm.labels["after 5"], call_sp=LOW)) is not None


@pytest.mark.parametrize(("last", "is_found"), [(767, True), (768, False)])
@pytest.mark.parametrize("walks", [0, 1])
def test_a_walk_follows_32768_instructions_before_it_follows_fewer_for_a_frame(last, is_found, walks) -> None:
    """Sixteen times 2,000 and `last` ones; a function whose ebp is elsewhere is followed anew."""
    found = rest(Assembler(TEXT).emit("90" * 1999, ret()), RETURN)
    for _ in range(walks):
        found.begin_walk()
    for number in range(16):
        assert found.caller(place(TEXT, ebp=LOW + 8 * number)) is not None
    assert found.caller(place(TEXT + 2000 - last)) is not None
    assert (found.caller(place(TEXT, ebp=LOW + 0x100)) is not None) == is_found
    assert found.caller(place(TEXT + 2000 - 200)) is not None
    assert found.caller(place(TEXT + 2000 - 201)) is None


def test_what_was_followed_to_its_end_is_kept_for_further_walks() -> None:
    asm = Assembler(TEXT).emit("90" * 9, ret()).label("loop").emit("90ebfd")
    code = code_of(asm, segments={LOW: words(RETURN)})
    found = RestOfFunction(code, Callees(code))
    assert found.caller(place(TEXT)) is not None
    assert found.caller(place(asm.labels["loop"])) is None
    work = code.work_done
    found.begin_walk()
    assert found.caller(place(TEXT)) is not None
    assert found.caller(place(asm.labels["loop"])) is None
    assert code.work_done == work


def test_arguments_of_the_first_call_may_have_been_pushed_before_code_was_interrupted() -> None:
    asm = Assembler(TEXT).emit("ff16", "5058", ret())  # call [esi]; push eax; pop eax
    assert rest(asm, RETURN).caller(place(TEXT)).doubt == 1
    assert rest(asm, RETURN).caller(place(TEXT, call_sp=LOW)).doubt == 0


def test_a_helper_that_has_changed_nothing_yet_is_not_followed() -> None:
    asm = Assembler(TEXT).emit(ret())
    assert rest(asm, RETURN).caller(place(TEXT, is_in_helper=True)) is None


@pytest.mark.parametrize("code", ["9cc3", "0f45e0c3", "8b2510004000c3"])
def test_a_return_to_nobody_knows_where_gives_no_caller(code: str) -> None:
    """pushfd; ret. cmovne esp, eax; ret. mov esp, [400010h]; ret."""
    assert rest(Assembler(TEXT).emit(code), RETURN).caller(place(TEXT)) is None


def test_a_return_address_that_cannot_be_read_gives_no_caller() -> None:
    assert rest(Assembler(TEXT).emit(ret())).caller(Place(registers_at(esp=0x500000))) is None


def test_a_helper_pushes_the_return_address_that_it_holds_in_a_register() -> None:
    asm = Assembler(TEXT).emit("51", ret(8))  # push ecx; ret 8
    found = rest(asm, 0).caller(Place(registers_at(ecx=RETURN, ebx=7, eax=1)))
    assert (found.slot, found.return_address, found.is_in_register) == (LOW - 4, RETURN, True)
    assert (found.call_sp, found.popped) == (LOW, 8)
    assert found.gpr == (None, None, None, 7, LOW + 8, None, None, None)


def test_esp_that_comes_from_a_frame_pointer_need_not_be_exact() -> None:
    far = LOW + 0x20000
    asm = Assembler(TEXT).emit(LEAVE, ret())
    code = code_of(asm, segments={far: words(0x12FF80, RETURN)})
    here = Place(registers_at(ebp=far), LOW, is_sp_exact=False)
    found = RestOfFunction(code, Callees(code)).caller(here)
    assert (found.slot, found.return_address, found.doubt) == (far + 4, RETURN, 0)


def test_only_a_call_with_its_target_in_it_and_before_the_address_is_one_of_a_helper() -> None:
    asm = Assembler(TEXT)
    asm.emit("ff15", DATA.to_bytes(4, "little"), "90").label("after").emit(ret()).align()
    asm.label("helper").emit("59", LEAVE, "51", ret())
    found = rest(asm, data={DATA: words(asm.labels["helper"])})
    assert not found.is_past_helper(TEXT + 5)  # a call begins five bytes before, and ends after it
    assert not found.is_past_helper(asm.labels["after"])
    assert not found.is_past_helper(DATA)


def test_a_helper_returns_to_a_word_that_it_has_copied() -> None:
    """push [esp+8]; ret: the return address is in the slot that it was copied from."""
    found = rest(Assembler(TEXT).emit("ff742408", ret()), 0, 0, RETURN).caller(place(TEXT))
    assert (found.slot, found.return_address, found.is_in_register) == (LOW + 8, RETURN, False)
    assert found.call_sp == LOW
