# SPDX-License-Identifier: Apache-2.0
"""Unwind codes compiled for one address: where the saved registers and the return address are."""

from __future__ import annotations

from throwstack.core.frames import End
from throwstack.core.registers import SP
from throwstack.core.stop import Stop
from throwstack.images.function_table import RuntimeFunction
from throwstack.unwind.x64.functions import Function, Part
from throwstack.unwind.x64.unwind_info import UnwindCode, UnwindInfo, UnwindOp
from throwstack.unwind.x64.unwind_plan import UnwindPlan, compile_codes

RBX, RBP, RSI = 3, 5, 6
BEGIN = 0x1000


def function(*codes: UnwindCode, frame_register: int = 0, frame_offset: int = 0, prologue_size: int = 16) -> Function:
    info = UnwindInfo(1, 0, prologue_size, frame_register, frame_offset, codes)
    return Function(0x180000000, (Part(RuntimeFunction(BEGIN, BEGIN + 0x100, 0x5000), info),))


PUSH_AND_SUB = (UnwindCode(5, UnwindOp.ALLOC_SMALL, 0, 0x20), UnwindCode(1, UnwindOp.PUSH_NONVOL, RBX))
"""push rbx (1 byte); sub rsp, 20h (4 bytes). Codes are in the order in which they are undone."""


def test_after_the_prologue_all_codes_hold() -> None:
    assert compile_codes(function(*PUSH_AND_SUB), BEGIN + 5) == UnwindPlan(((RBX, SP, 0x20),), (SP, 0x28))


def test_within_the_prologue_only_what_has_been_done_is_undone() -> None:
    assert compile_codes(function(*PUSH_AND_SUB), BEGIN + 1) == UnwindPlan(((RBX, SP, 0),), (SP, 8))
    assert compile_codes(function(*PUSH_AND_SUB), BEGIN) == UnwindPlan((), (SP, 0))


def test_a_frame_register_replaces_rsp_once_it_is_set() -> None:
    """push rbp; sub rsp, 40h; lea rbp, [rsp+20h]: from there on rsp may move."""
    codes = (
        UnwindCode(10, UnwindOp.SET_FPREG, RBP, 0x20),
        UnwindCode(5, UnwindOp.ALLOC_SMALL, 0, 0x40),
        UnwindCode(1, UnwindOp.PUSH_NONVOL, RBP),
    )
    made = function(*codes, frame_register=RBP, frame_offset=0x20, prologue_size=10)
    assert compile_codes(made, BEGIN + 10) == UnwindPlan(((RBP, RBP, 0x20),), (RBP, 0x28))
    assert compile_codes(made, BEGIN + 5) == UnwindPlan(((RBP, SP, 0x40),), (SP, 0x48))


def test_the_place_of_a_register_saved_by_mov_counts_from_rsp_in_the_frame() -> None:
    """sub rsp, 30h; mov [rsp+40h], rsi: the slot is in the home area of the caller, above the return address."""
    codes = (UnwindCode(9, UnwindOp.ALLOC_SMALL, 0, 0x30), UnwindCode(9, UnwindOp.SAVE_NONVOL, RSI, 0x40))
    assert compile_codes(function(*codes), BEGIN + 9) == UnwindPlan(((RSI, SP, 0x40),), (SP, 0x30))


def test_before_the_frame_register_is_set_a_register_saved_by_mov_counts_from_rsp() -> None:
    """sub rsp, 40h; mov [rsp+30h], rsi; lea rbp, [rsp+20h]: rbp still has the caller's value at the lea."""
    codes = (
        UnwindCode(14, UnwindOp.SET_FPREG, RBP, 0x20),
        UnwindCode(9, UnwindOp.SAVE_NONVOL, RSI, 0x30),
        UnwindCode(4, UnwindOp.ALLOC_SMALL, 0, 0x40),
    )
    made = function(*codes, frame_register=RBP, frame_offset=0x20, prologue_size=14)
    assert compile_codes(made, BEGIN + 9) == UnwindPlan(((RSI, SP, 0x30),), (SP, 0x40))
    assert compile_codes(made, BEGIN + 14) == UnwindPlan(((RSI, RBP, 0x10),), (RBP, 0x20))


def test_a_machine_frame_is_above_the_error_code() -> None:
    with_code = function(UnwindCode(0, UnwindOp.PUSH_MACHFRAME, 0, 1))
    without = function(UnwindCode(0, UnwindOp.PUSH_MACHFRAME, 0, 0))
    assert compile_codes(with_code, BEGIN) == UnwindPlan((), (SP, 8), is_machine_frame=True)
    assert compile_codes(without, BEGIN) == UnwindPlan((), (SP, 0), is_machine_frame=True)


def test_push_machframe_before_another_unwind_code_is_corrupt() -> None:
    codes = (UnwindCode(0, UnwindOp.PUSH_MACHFRAME, 0, 0), UnwindCode(0, UnwindOp.PUSH_NONVOL, RBX))
    stop = compile_codes(function(*codes), BEGIN)
    assert isinstance(stop, Stop)
    assert (stop.end, stop.detail) == (End.BAD_UNWIND_DATA, "PUSH_MACHFRAME out of place at 0x180001000")


def test_the_codes_of_a_chained_part_are_undone_before_those_of_its_primary_entry() -> None:
    primary = function(UnwindCode(1, UnwindOp.PUSH_NONVOL, RBX)).parts[0]
    later = UnwindInfo(1, 4, 4, 0, 0, (UnwindCode(4, UnwindOp.ALLOC_SMALL, 0, 0x10),))
    part = Part(RuntimeFunction(0x2000, 0x2100, 0x5100), later)
    plan = compile_codes(Function(0x180000000, (part, primary)), 0x2004)
    assert plan == UnwindPlan(((RBX, SP, 0x10),), (SP, 0x18))
