# SPDX-License-Identifier: Apache-2.0
"""Decoded instructions, from bytes as Intel's manual encodes them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        ("e300", Opcode.BRANCH, 2),  # jecxz
        ("cd2e", Opcode.SYSTEM_CALL, 2),
        ("0f34", Opcode.SYSTEM_CALL, 2),  # sysenter
        ("0f05", Opcode.SYSTEM_CALL, 2),  # syscall, of AMD's processors
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


WRITE_MEMORY = {
    "mov": "890424 880424 660f7f0424 c7042401000000",  # of eax, al, xmm0, a constant
    "add, or, adc, sbb, and, sub, xor": "010424 090424 110424 190424 210424 290424 310424",
    "inc, dec, not, neg": "ff0424 ff0c24 f71424 f71c24",
    "shl, shr, sar, rol": "c1242404 c12c2404 c13c2404 c1042404",
    "bts, btr, btc": "0fba2c2405 0fba342405 0fba3c2405",
    "xchg, xadd, cmpxchg, cmpxchg8b": "870424 0fc10424 0fb10c24 0fc70c24",
    "pop, sete": "8f0424 0f940424",
    "stosb, stosd, movsb, movsd": "aa ab a4 a5",
    "fst, fstp of 4, 8 and 10 bytes, fist, fistp, fisttp, fbstp": (
        "d91424 dd1424 d91c24 dd1c24 db3c24 db1424 db1c24 db0c24 df3424"
    ),
    "fnstcw, fnstsw, stmxcsr": "d93c24 dd3c24 0fae1c24",
    "movups, movq of xmm and mm, movnti, vmovups": "0f110424 660fd60424 0f7f0424 0fc30424 c5f8110424",
}
ONLY_READ_MEMORY = {
    "cmp, test, bt": "390424 850424 0fba242405",
    "mul, imul, div, idiv": "f72424 f72c24 f73424 f73c24",
    "push, call, jmp, nop": "ff3424 ff1424 ff2424 0f1f0424",
    "cmpsb, cmpsw, cmpsd": "a6 66a7 a7",
    "fld of 4, 8 and 10 bytes, fild, fbld": "d90424 dd0424 db2c24 db0424 df2424",
    "fadd, fmul, fcom, fcomp": "d80424 d80c24 d81424 d81c24",
    "fsub, fsubr, fdiv, fdivr": "d82424 d82c24 d83424 d83c24",
    "fiadd, fimul, ficom, ficomp": "da0424 da0c24 da1424 da1c24",
    "fisub, fisubr, fidiv, fidivr": "da2424 da2c24 da3424 da3c24",
    "fldcw, fldenv, frstor, ldmxcsr": "d92c24 d92424 dd2424 0fae1424",
    "fxrstor, xrstor, xrstors": "0fae0c24 0fae2c24 0fc71c24",
    "prefetch, prefetchw": "0f0d0424 0f0d0c24",
    "prefetchnta, prefetcht0, prefetcht1, prefetcht2": "0f180424 0f180c24 0f181424 0f181c24",
}
"""Instructions whose first operand is memory, by what the operations in Intel's manual (volume 2) do with it."""


@pytest.mark.parametrize("names", WRITE_MEMORY)
def test_an_instruction_that_stores_to_memory_writes_it(names: str) -> None:
    assert [code for code in WRITE_MEMORY[names].split() if not decoded(code).writes_memory] == []


@pytest.mark.parametrize("names", ONLY_READ_MEMORY)
def test_an_instruction_that_only_reads_memory_does_not_write_it(names: str) -> None:
    assert [code for code in ONLY_READ_MEMORY[names].split() if decoded(code).writes_memory] == []


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


def test_an_instruction_has_at_most_15_bytes() -> None:
    """add dword ptr [esp+100h], 12345678h with prefixes that say nothing new (Intel's manual, volume 2, 2.3.11)."""
    assert decoded("3e" * 4 + "8184240001000078563412").size == 15
    longer = Decoder(memory_of({AT: bytes.fromhex("3e" * 5 + "8184240001000078563412")}))
    assert longer.at(AT) is None


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


def test_an_encoding_means_the_same_wherever_it_is_but_a_relative_call_leads_elsewhere() -> None:
    """push ebp; call $+10h, twice."""
    decoder = Decoder(memory_of({AT: bytes.fromhex("55 e80b000000 55 e80b000000")}))
    first, call, again, other = (decoder.at(AT + offset) for offset in (0, 1, 6, 7))
    assert first == Instruction(AT, 1, Opcode.PUSH, (Register(5),))
    assert again == Instruction(AT + 6, 1, Opcode.PUSH, (Register(5),))
    assert [item.operand(0) for item in (call, other) if item] == [Immediate(AT + 0x11), Immediate(AT + 0x17)]


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=15, max_size=80))
def test_what_was_decoded_before_changes_nothing(code: bytes) -> None:
    memory = memory_of({AT: code})
    decoder = Decoder(memory)
    for offset in range(len(code)):
        assert decoder.at(AT + offset) == Decoder(memory).at(AT + offset)
