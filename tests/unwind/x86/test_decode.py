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
        ("60", Opcode.PUSH_ALL, 1),
        ("9c", Opcode.PUSH_FLAGS, 1),
        ("58", Opcode.POP, 1),
        ("61", Opcode.POP_ALL, 1),
        ("9d", Opcode.POP_FLAGS, 1),
        ("8d4508", Opcode.LEA, 3),
        ("83c004", Opcode.ADD, 3),
        ("83e4f0", Opcode.AND, 3),
        ("83c801", Opcode.OR, 3),
        ("33c0", Opcode.XOR, 2),
        ("94", Opcode.XCHG, 1),
        ("c8100000", Opcode.ENTER, 4),
        ("ea000000001b00", Opcode.STOP, 7),  # a far jump, as into 64-bit code
        ("cf", Opcode.STOP, 1),  # iretd
        ("f4", Opcode.STOP, 1),  # hlt
        ("0f0b", Opcode.STOP, 2),  # ud2
        ("0f35", Opcode.STOP, 2),  # sysexit
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


@pytest.mark.parametrize(
    "code",
    [
        *("dd1c24", "d91c24", "db1c24", "dd1424", "d97c2404", "0fae5c2404"),  # fstp, fistp, fst, fnstcw, stmxcsr
        *("0f110424", "660fd60424", "0f7f0424", "0fc30424"),  # movups, movq of xmm and mm, movnti
        *("0fb10c24", "0fc70c24", "0f940424", "ff0424", "c5f8110424"),  # cmpxchg, cmpxchg8b, sete, inc, vmovups
    ],
)
def test_an_instruction_that_stores_to_memory_writes_it(code: str) -> None:
    assert decoded(code).writes_memory


@pytest.mark.parametrize(
    "code",
    [
        *("390424", "850424", "0fba242405", "f72424", "f73424"),  # cmp, test, bt, mul, div
        *("dd0424", "db0424", "dc0424", "d81424", "d92c24", "0fae1424"),  # fld, fild, fadd, fcom, fldcw, ldmxcsr
        *("0f180424", "0f1f0424", "0fae2c24", "0fc71c24"),  # prefetchnta, nop, xrstor, xrstors
    ],
)
def test_an_instruction_that_only_reads_memory_does_not_write_it(code: str) -> None:
    assert not decoded(code).writes_memory


@pytest.mark.parametrize(
    ("code", "size"),
    [
        *(("dd3424", 108), ("d93424", 28)),  # fnsave, fnstenv
        *(("0fae0424", 512), ("0fae2424", 576), ("0fae3424", 576)),  # fxsave, xsave, xsaveopt
        *(("0fc72424", 576), ("0fc72c24", 576), ("dd1c24", 8)),  # xsavec, xsaves, fstp
    ],
)
def test_an_instruction_that_saves_the_processor_s_state_writes_as_much(code: str, size: int) -> None:
    found = decoded(code)
    assert (found.writes_memory, found.operand(0).size) == (True, size)


def test_bytes_that_are_no_instruction_or_cannot_be_read_give_none() -> None:
    page = b"\x55" * (PAGE_SIZE - 1) + b"\xe8"  # a call that is cut at the end of the page
    decoder = Decoder(memory_of({AT: page}))
    assert decoder.at(AT + PAGE_SIZE - 2) is not None
    assert decoder.at(AT + PAGE_SIZE - 1) is None
    assert decoder.at(AT + PAGE_SIZE) is None


WRITERS = {
    "eax": ("b801000000", "66b80100", "b001", "b401"),
    "ecx": ("b901000000", "66b90100", "b101", "b501"),
    "edx": ("ba01000000", "66ba0100", "b201", "b601"),
    "ebx": ("bb01000000", "66bb0100", "b301", "b701"),
    "esp": ("bc01000000", "66bc0100"),
    "ebp": ("bd01000000", "66bd0100"),
    "esi": ("be01000000", "66be0100"),
    "edi": ("bf01000000", "66bf0100"),
}


@pytest.mark.parametrize(("number", "code"), [(n, code) for n, codes in enumerate(WRITERS.values()) for code in codes])
def test_a_write_of_a_part_changes_the_register(number: int, code: str) -> None:
    assert decoded(code).written == (number,)


@pytest.mark.parametrize(
    ("code", "written"),
    [("8d4508", (0,)), ("03c1", (0,)), ("2bc1", (0,)), ("23c1", (0,)), ("0bc1", (0,)), ("33c1", (0,)), ("40", (0,))],
)
def test_what_an_operation_writes_is_known(code: str, written: tuple[int, ...]) -> None:
    assert decoded(code).written == written


def test_an_exchange_writes_both_registers() -> None:
    assert set(decoded("87ca").written) == {1, 2}


@pytest.mark.parametrize("code", ["55", "5d", "c9", "e800000000", "c3"])
def test_what_the_kind_of_instruction_says_is_not_said_again(code: str) -> None:
    assert decoded(code).written == ()


@pytest.mark.parametrize(
    ("code", "displacement"),
    [
        ("8b8affffff7f", 0x7FFFFFFF),
        ("8b8a00000040", 0x40000000),
        ("8b8a00000080", -0x80000000),
        ("8b8affffffff", -1),
        ("8b8a00000000", 0),
    ],
)
def test_a_displacement_is_a_signed_number(code: str, displacement: int) -> None:
    assert decoded(code).operand(1).displacement == displacement
