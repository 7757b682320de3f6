# SPDX-License-Identifier: Apache-2.0
"""Walks from a CONTEXT that a function has captured of its caller with RtlCaptureContext, and never returned."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EBP, EBX, ESI, ESP, Assembler, mov, pop, push, ret
from tests.unwind.x86.machine import TEXT
from tests.unwind.x86.written_stack import Stack, walk


def program(filling: str) -> Assembler:
    """outer ends with its call of report. Another function follows, at once or after filling."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("cc").align()
    asm.label("report").emit(push(EBP), mov(EBP, ESP), "cc").align()
    asm.label("outer").emit(push(EBP), mov(EBP, ESP), push(ESI))
    while (asm.here + 5 + len(filling) // 2) % 16:
        asm.emit("90")
    asm.call("report").label("back in outer").emit(filling)
    asm.label("next").emit(push(EBX), "8bc1", pop(EBX), ret()).align()
    return asm.label("calls next").call("next").label("back from next").emit(ret())


def captured(asm: Assembler, *stack: int | str, has_symbols: bool, ip: str = "back in outer"):
    laid_out = Stack("esp", *stack)
    ebp = laid_out.marks.get("ebp", 0)
    registers = {"eip": asm.labels[ip], "esp": laid_out["esp"], "ebp": ebp, "esi": 5, "ebx": 0xB}
    return walk(asm, laid_out, registers, has_symbols=has_symbols)


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
@pytest.mark.parametrize("filling", ["", "cccccc", "9090", "cc" * 15])
def test_its_eip_is_a_return_address_in_the_function_that_made_the_call(filling, has_symbols):
    asm = program(filling)
    found = captured(asm, 0x51, "ebp", 0, asm.labels["back in start"], 0, has_symbols=has_symbols)
    assert [frame.ip for frame in found.frames] == [asm.labels["back in outer"], asm.labels["back in start"]]
    assert not found.frames[0].is_interrupted  # its name is that of the call
    assert found.frames[1].registers.gpr[ESI] == 0x51
    assert found.is_complete


def test_a_function_that_was_just_entered_has_its_return_address_on_top_of_the_stack():
    asm = program("")
    found = captured(asm, asm.labels["back from next"], 0, has_symbols=True)
    assert found.frames[0].is_interrupted
    assert found.frames[1].ip == asm.labels["back from next"]


def test_an_address_after_a_call_in_the_middle_of_a_function_is_where_code_was_stopped():
    asm = program("")
    found = captured(asm, 0, has_symbols=True, ip="back from next")
    assert found.frames[0].is_interrupted


@pytest.mark.parametrize("code", ["cc" + "8bc1" * 2, "cc" * 16], ids=["code goes on", "nothing to be filled"])
def test_a_breakpoint_after_a_call_is_no_filling(code):
    """Filling ends at the next multiple of 16. An address that is one already needs none."""
    asm = program(code)
    found = captured(asm, 0x51, "ebp", 0, asm.labels["back in start"], 0, has_symbols=True)
    assert found.frames[0].is_interrupted
