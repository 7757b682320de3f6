# SPDX-License-Identifier: Apache-2.0
"""Decoded instructions, from bytes as Intel's manual encodes them."""

from __future__ import annotations

import pytest

from throwstack.core.memory import PAGE_SIZE, memory_of
from throwstack.unwind.x86.decode import Decoder, Immediate, Indirect, Instruction, Opcode, Register

AT = 0x401000


def decoded(code: str) -> Instruction:
    found = Decoder(memory_of({AT: bytes.fromhex(code)})).at(AT)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("code", "op", "size"),
    [
        ("55", Opcode.PUSH, 1),
        ("8bec", Opcode.MOV, 2),
        ("83ec10", Opcode.SUB, 3),
        ("c9", Opcode.LEAVE, 1),
        ("c20800", Opcode.RETURN, 3),
        ("e800000000", Opcode.CALL, 5),
        ("64ff15c0000000", Opcode.CALL, 7),
        ("eb00", Opcode.JUMP, 2),
        ("7500", Opcode.BRANCH, 2),
        ("e200", Opcode.BRANCH, 2),  # loop
        ("cd2e", Opcode.SYSTEM_CALL, 2),
        ("0f34", Opcode.SYSTEM_CALL, 2),  # sysenter
        ("cd29", Opcode.STOP, 2),  # __fastfail does not come back
        ("cd2d", Opcode.OTHER, 2),  # int 2Dh does
        ("cc", Opcode.STOP, 1),
        ("cb", Opcode.STOP, 1),  # a far return
        ("6655", Opcode.STOP, 2),  # push bp moves esp by 2: no compiler's code
        ("90", Opcode.OTHER, 1),
    ],
)
def test_an_instruction_is_classified(code: str, op: Opcode, size: int) -> None:
    found = decoded(code)
    assert (found.op, found.size, found.end) == (op, size, AT + size)


@pytest.mark.parametrize(
    ("code", "operands"),
    [
        ("8b4508", (Register(0), Indirect(5, None, 1, 8, 4, has_segment=False))),  # mov eax, [ebp+8]
        ("894df8", (Indirect(5, None, 1, -8, 4, has_segment=False), Register(1))),  # mov [ebp-8], ecx
        ("64a100000000", (Register(0), Indirect(None, None, 1, 0, 4, has_segment=True))),  # mov eax, fs:[0]
        ("ff248500204000", (Indirect(None, 0, 4, 0x402000, 4, has_segment=False),)),  # jmp [eax*4+402000h]
        ("68ffffffff", (Immediate(0xFFFFFFFF),)),  # push -1
        ("8ac1", (None, None)),  # mov al, cl: parts of registers
    ],
)
def test_the_operands_of_an_instruction_are_decoded(code: str, operands: tuple[object, ...]) -> None:
    assert decoded(code).operands == operands


def test_an_address_is_absolute_only_without_registers_and_segment() -> None:
    assert decoded("ff1500204000").operand(0).absolute == 0x402000  # call [402000h]
    assert decoded("ff9000204000").operand(0).absolute is None  # call [eax+402000h]
    assert decoded("64ff15c0000000").operand(0).absolute is None  # call fs:[0C0h]


def test_the_decoder_says_which_registers_and_memory_are_changed() -> None:
    assert set(decoded("f7e1").written) == {0, 2}  # mul ecx
    assert decoded("8ac1").written == (0,)  # mov al, cl changes eax in part
    assert decoded("890424").writes_memory  # mov [esp], eax
    assert not decoded("8b0424").writes_memory  # mov eax, [esp]
    assert not decoded("3b0424").writes_memory  # cmp eax, [esp]


def test_bytes_that_are_no_instruction_or_cannot_be_read_give_none() -> None:
    page = b"\x55" * (PAGE_SIZE - 1) + b"\xe8"  # a call that is cut at the end of the page
    decoder = Decoder(memory_of({AT: page}))
    assert decoder.at(AT + PAGE_SIZE - 2) is not None
    assert decoder.at(AT + PAGE_SIZE - 1) is None
    assert decoder.at(AT + PAGE_SIZE) is None
