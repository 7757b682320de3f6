# SPDX-License-Identifier: Apache-2.0
"""FrameData programs and FPO_DATA records, on stacks written down by hand, and at their limits."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch, Registers
from throwstack.names.frame_records import FrameData
from throwstack.unwind.x86.call_frame import Place
from throwstack.unwind.x86.frame_data import ProgramError, RecordedCaller, callers, run_program

NOTHING = memory_of({})


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("2 3 +", 5),
        ("2 3 -", 0xFFFFFFFF),
        ("6 7 *", 42),
        ("43 10 /", 4),
        ("43 10 %", 3),
        ("1039 16 @", 1024),
        ("65536 65536 *", 0),
        ("-4 4 +", 0),
        ("$ebx 4 +", 0x1004),
    ],
)
def test_each_operator_of_a_program_is_computed(expression, expected):
    assert run_program(f"$T0 {expression} =", {"$ebx": 0x1000}, NOTHING) == {"$T0": expected}


def test_a_program_reads_the_word_at_an_address():
    memory = memory_of({0x2000: words(0, 0xCAFE)})
    assert run_program("$T0 8192 = $eip $T0 4 + ^ =", {}, memory) == {"$T0": 0x2000, "$eip": 0xCAFE}


def test_an_assignment_hides_the_value_that_was_given():
    assert run_program("$ebp $ebp 4 + = $T0 $ebp =", {"$ebp": 8}, NOTHING) == {"$ebp": 12, "$T0": 12}


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("$T0 1 0 / =", ProgramError.DIVISION_BY_ZERO),
        ("$T0 1 0 % =", ProgramError.DIVISION_BY_ZERO),
        ("$T0 1 0 @ =", ProgramError.DIVISION_BY_ZERO),
        ("$T0 .raSearch =", ProgramError.UNKNOWN_VARIABLE),
        ("$T0 4 ^ =", ProgramError.UNREADABLE),
        ("=", ProgramError.MALFORMED),
        ("1 =", ProgramError.MALFORMED),
        ("1 2 =", ProgramError.MALFORMED),
        ("+", ProgramError.MALFORMED),
        ("$T0", ProgramError.MALFORMED),
        ("$T0 nonsense =", ProgramError.MALFORMED),
        ("$T0 99999999999999999999 =", ProgramError.MALFORMED),
        ("$T0 1 = " * 1000, ProgramError.TOO_LONG),
    ],
)
def test_a_program_that_fails_gives_the_reason(program, error):
    assert run_program(program, {}, NOTHING) is error


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.lists(
        st.sampled_from([*"+-*/%@^=", "$T0", "$eip", "$esp", "$ebp", ".raSearch", "0", "4", "-1", "x", "$"])
        | st.text(max_size=6),
        max_size=40,
    )
)
def test_any_text_is_run_as_a_program_or_refused(tokens):
    result = run_program(" ".join(tokens), {"$esp": 0x1000, "$ebp": 0x1010}, memory_of({0x1000: bytes(64)}))
    assert isinstance(result, (dict, ProgramError))


ESP = 0x1000
RETURN = 0x00401234
CALLER_EBP = 0x1100


def record(program: str = "", **sizes: int | bool) -> FrameData:
    fields = dict.fromkeys(("rva", "prologue_size", "parameters_size", "saved_registers_size", "locals_size"), 0)
    return FrameData(**{**fields, "size": 0x40, "program": program, "uses_base_pointer": False, **sizes})  # type: ignore[arg-type]


def first(data: FrameData, stack: bytes, *, arguments: int = 0, call_sp: int | None = None, **registers: int):
    place = Place(Registers.named(Arch.X86, {"eip": 0x401000, "esp": ESP, **registers}), call_sp)
    return next(callers(data, place, arguments, memory_of({ESP: stack}), None))


def slot_of(found) -> int:
    assert isinstance(found, RecordedCaller)
    assert found.caller.return_address == RETURN
    return found.caller.slot


def test_a_program_that_uses_ebp_finds_the_caller():
    stack = words(1, 2, CALLER_EBP, RETURN)
    data = record("$T0 $ebp = $eip $T0 4 + ^ = $ebp $T0 ^ = $esp $T0 8 + =")
    found = first(data, stack, ebp=ESP + 8)
    assert slot_of(found) == ESP + 12
    assert found.caller.gpr[5] == CALLER_EBP
    assert found.caller.call_sp == ESP + 16


def test_ra_search_starts_above_arguments_locals_and_saved_registers():
    # two arguments of the callee, one saved register, three locals, return address
    stack = words(0xA1, 0xA2, 0x51, 0, 0, 0, RETURN)
    data = record("$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =", locals_size=12, saved_registers_size=4)
    assert slot_of(first(data, stack, arguments=8, call_sp=ESP)) == ESP + 24


def test_ra_search_looks_up_to_three_words_further():
    stack = words(0, 0, 0, RETURN)
    data = record("$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =")
    place = Place(Registers.named(Arch.X86, {"eip": 0x401000, "esp": ESP}))
    answers = [
        found for found in callers(data, place, 0, memory_of({ESP: stack}), None) if isinstance(found, RecordedCaller)
    ]
    assert [found.searched for found in answers if found.caller.return_address == RETURN] == [3]


def test_a_realigned_frame_counts_from_ebp():
    # esp was rounded down: only ebp tells where the frame is
    stack = words(0, 0, 0, 0, 0, 0, CALLER_EBP, RETURN)
    data = record("$T0 .raSearch = $T1 $T0 16 @ = $eip $T0 ^ = $esp $T0 4 + =", locals_size=4)
    assert slot_of(first(data, stack, ebp=ESP + 24)) == ESP + 28


def test_fpo_data_with_nothing_saved_keeps_the_registers():
    found = first(record(locals_size=8), words(0, 0, RETURN), ebp=0x1234, ebx=7, esi=8, edi=9)
    assert slot_of(found) == ESP + 8
    assert [found.caller.gpr[n] for n in (3, 5, 6, 7)] == [7, 0x1234, 8, 9]


def test_fpo_data_finds_ebp_second_among_the_saved_registers():
    # pushed in the order ebx, ebp, esi: lowest address last
    stack = words(6, ESP + 0x40, 3, 0, RETURN)
    data = record(locals_size=4, saved_registers_size=12, uses_base_pointer=True)
    found = first(data, stack, ebp=0xBAD)
    assert slot_of(found) == ESP + 16
    assert found.caller.gpr[5] == ESP + 0x40


def test_fpo_data_of_link_time_code_generation_forgets_the_saved_ebp():
    # the record says that ebp is used and that nothing is saved: the word in the likely slot cannot be a frame pointer
    data = record(uses_base_pointer=True)
    assert first(data, words(RETURN, 0), ebp=0xBAD).caller.gpr[5] is None


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("$eip 4096 ^ =", ProgramError.NO_CALLER),
        ("$eip 4096 ^ = $esp 4096 =", ProgramError.NO_PROGRESS),
        ("$eip 5 = $esp 4100 =", ProgramError.NO_RETURN_ADDRESS),
        ("$eip 5 = $esp 1048576 =", ProgramError.UNREADABLE),
    ],
)
def test_a_program_without_a_caller(program, error):
    assert first(record(program), words(RETURN, RETURN)) is error


EBX, EBP, ESI, EDI = 3, 5, 6, 7
HERE = "$eip $esp ^ = $esp $esp 4 + ="
"""The return address is at esp."""


@pytest.mark.parametrize(
    ("sums", "numbers", "expected"), [(2, 338, {"$T0": 2}), (1, 340, ProgramError.TOO_LONG)], ids=["1024", "1025"]
)
def test_a_program_has_at_most_1024_tokens(sums, numbers, expected):
    assert run_program("$T0 1 1 + = " * sums + "$T0 2 = " * numbers, {}, NOTHING) == expected


@pytest.mark.parametrize(
    ("number", "value"),
    [("000000000012", 12), ("0000000000012", None), ("-000000000012", 0xFFFFFFF4), ("4294967296", 0), ("1a", None)],
)
def test_a_number_has_at_most_twelve_digits(number, value):
    assert run_program(f"$T0 {number} =", {}, NOTHING) == (ProgramError.MALFORMED if value is None else {"$T0": value})


@pytest.mark.parametrize("number", ["²", "٣", "--1", "$"])
def test_only_ascii_digits_are_numbers(number):
    expected = ProgramError.UNKNOWN_VARIABLE if number == "$" else ProgramError.MALFORMED
    assert run_program(f"$T0 {number} =", {}, NOTHING) is expected


@pytest.mark.parametrize(("expression", "expected"), [("5 0 +", 5), ("5 0 -", 5), ("5 0 *", 0), ("0 5 /", 0)])
def test_only_divisions_by_zero_are_refused(expression, expected):
    assert run_program(f"$T0 {expression} =", {}, NOTHING) == {"$T0": expected}


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("$T0 $T1 1 + =", ProgramError.UNKNOWN_VARIABLE),
        ("$T0 1 $T1 + =", ProgramError.UNKNOWN_VARIABLE),
        ("$T0 $T1 ^ =", ProgramError.UNKNOWN_VARIABLE),
        ("1 +", ProgramError.MALFORMED),
        ("^", ProgramError.MALFORMED),
        ("5 $T0 =", ProgramError.UNKNOWN_VARIABLE),
    ],
)
def test_an_operand_that_is_not_there_or_has_no_value_is_an_error(program, error):
    assert run_program(program, {}, NOTHING) is error


def answers(data, stack: bytes, *, popped: int | None = None, arguments: int = 0, **registers: int):
    place = Place(Registers.named(Arch.X86, {"eip": 0x401000, "esp": ESP, **registers}), ESP)
    return list(callers(data, place, arguments, memory_of({ESP: stack}), popped))


def test_a_search_takes_the_recorded_word_and_three_above_it():
    for data in (record("$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + ="), record()):
        found = answers(data, words(*[RETURN] * 8))
        assert [(each.searched, each.caller.slot) for each in found] == [(n, ESP + 4 * n) for n in range(4)]
    assert len(answers(record(HERE), words(*[RETURN] * 8))) == 1


def test_a_program_is_given_the_sizes_of_its_record():
    data = record(
        "$T0 .cbLocals .cbParams 100 * + .cbSavedRegs 10000 * + .cbCalleeParams 1000000 * + = "
        "$ebx $T0 = $esi .raSearch = $edi .raSearchStart = " + HERE,
        locals_size=8,
        parameters_size=12,
        saved_registers_size=4,
    )
    found = answers(data, words(RETURN), arguments=16)[0].caller
    assert found.gpr[EBX] == 8 + 12 * 100 + 4 * 10000 + 16 * 1000000
    assert (found.gpr[ESI], found.gpr[EDI]) == (ESP + 28, ESP + 28)


def test_a_realigned_frame_without_ebp_counts_from_esp():
    data = record("$T0 .raSearch 4 @ = $eip $T0 ^ = $esp $T0 4 + =", locals_size=4)
    assert slot_of(first(data, words(0, RETURN))) == ESP + 4
    plain = record("$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =", locals_size=4)
    assert slot_of(first(plain, words(0, RETURN), ebp=ESP + 40)) == ESP + 4


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("$esp 4100 =", ProgramError.NO_CALLER),
        ("$eip 4096 ^ = $esp 4095 =", ProgramError.NO_PROGRESS),
        ("$eip 4097 ^ = $esp 4101 =", None),
    ],
)
def test_esp_grows_and_both_registers_are_set(program, error):
    found = first(record(program), words(RETURN, RETURN))
    assert (found is error) if error is not None else isinstance(found, RecordedCaller)


@pytest.mark.parametrize(("saved", "kept"), [(0, {EBX, EBP, ESI, EDI}), (4, {EBP})])
def test_what_a_program_does_not_mention_is_kept_where_nothing_is_saved(saved, kept):
    data = record(HERE, saved_registers_size=saved, uses_base_pointer=True)
    found = answers(data, words(RETURN), popped=8, eax=1, ecx=2, edx=3, ebx=4, ebp=5, esi=6, edi=7)[0].caller
    values = {EBX: 4, EBP: 5, ESI: 6, EDI: 7}
    assert found.gpr == tuple(ESP + 12 if n == 4 else values[n] if n in kept else None for n in range(8))
    assert (found.call_sp, found.popped) == (ESP + 4, 8)
    unknown = answers(data, words(RETURN))[0].caller
    assert (unknown.call_sp, unknown.popped, unknown.gpr[4]) == (ESP + 4, None, ESP + 4)


def test_an_fpo_frame_that_is_not_there_is_an_error():
    assert answers(record(locals_size=0x1000), words(RETURN)) == [ProgramError.UNREADABLE] * 4


def saved_ebp(data, stack: bytes) -> int | None:
    return first(data, stack, ebp=0xBAD).caller.gpr[EBP]


@pytest.mark.parametrize(
    ("size", "below", "expected"),
    [
        (4, (0x2000, 0x3000), 0x3000),  # one register: the word below the return address
        (0, (0x2000, 0x3000), 0x3000),  # link-time code generation records none
        (8, (0x2000, 0x3000), 0x2000),  # pushed second: mostly the one
        (8, (1, 0x3000), 0x3000),  # pushed first
        (12, (0x2000, 1, 1), 0x2000),  # pushed third
        (8, (0x2000, 1, 1), None),
        (12, (0x4000, 0x2000, 1, 1), 0x2000),
        (16, (0x4000, 0x2000, 1, 1), 0x2000),
        (16, (0x4000, 1, 1, 1), 0x4000),  # pushed fourth
        (12, (0x4000, 1, 1, 1), None),
    ],
)
def test_the_likely_slots_of_ebp_among_the_saved_registers(size, below, expected):
    stack = words(*below, RETURN)
    place = Place(Registers.named(Arch.X86, {"eip": 0x401000, "esp": ESP + 4 * len(below) - size, "ebp": 0xBAD}))
    data = record(saved_registers_size=size, uses_base_pointer=True)
    found = next(callers(data, place, 0, memory_of({ESP: stack}), None))
    assert found.caller.gpr[EBP] == expected


SLOT = ESP + 4


@pytest.mark.parametrize(
    ("value", "is_believed"),
    [(SLOT, False), (SLOT + 4, True), (SLOT + 6, False), (SLOT + 0x3FFFC, True), (SLOT + 0x40000, False)],
)
def test_a_saved_ebp_points_further_up_the_same_stack(value, is_believed):
    data = record(saved_registers_size=4, uses_base_pointer=True)
    assert saved_ebp(data, words(value, RETURN)) == (value if is_believed else None)


def test_locals_are_above_the_saved_registers():
    data = record(saved_registers_size=4, locals_size=8, uses_base_pointer=True)
    assert saved_ebp(data, words(0x2000, 0x3000, 0x3000, RETURN)) == 0x2000


def test_a_word_that_is_not_there_leaves_the_other_slots():
    data = record(saved_registers_size=8, uses_base_pointer=True)
    place = Place(Registers.named(Arch.X86, {"eip": 0x401000, "esp": ESP - 4, "ebp": 0xBAD}))
    found = next(callers(data, place, 0, memory_of({ESP: words(0x2000, RETURN)}), None))
    assert found.caller.gpr[EBP] == 0x2000


def test_where_ebp_is_no_general_register_no_word_is_taken_for_it():
    found = first(record(saved_registers_size=4), words(0x2000, RETURN), ebp=0x1234)
    assert (found.caller.slot, found.caller.gpr[EBP]) == (ESP + 4, 0x1234)
