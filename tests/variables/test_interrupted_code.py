# SPDX-License-Identifier: Apache-2.0
"""Frames whose instruction did not begin afresh: it had copied half of its bytes, or the function was being left."""

from __future__ import annotations

import pytest

from tests.support.described_frames import BASE, FUNCTION, described
from tests.support.pdb_model import X64, X86, FrameInfo, Local, Place, Register

STACK = 0x20000
AT = 0x20
LEFT = "the function was already being left"


def changing(register: str) -> str:
    return f"was in {register}, which the interrupted instruction was changing"


def stopped_at(tmp_path, machine, code, *items, slot=None, sp=STACK, **registers):
    """The variables of a function that stopped at the instruction `code`."""
    memory = {BASE + FUNCTION + AT: code.ljust(48, b"\x90"), STACK: bytes(range(1, 65))}
    it = described(tmp_path, *items, machine=machine, memory=memory)
    stack = {"rsp": sp} if machine == X64 else {"esp": sp}
    found = it.variables(it.frame(AT, slot=slot, is_interrupted=True, **stack, **registers))
    it.close()
    return found


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        (b"\xf3\xa4", {"rcx", "rsi", "rdi"}),  # rep movsb
        (b"\xf3\x48\xa5", {"rcx", "rsi", "rdi"}),  # rep movsq
        (b"\x66\xf3\xa5", {"rcx", "rsi", "rdi"}),  # rep movsw
        (b"\xf3\xaa", {"rcx", "rdi"}),  # rep stosb
        (b"\xf2\xae", {"rcx", "rdi"}),  # repne scasb
        (b"\xf3\x48\xac", {"rax", "rcx", "rsi"}),  # rep lodsb
        (b"\xa4", set()),  # movsb: one byte, or nothing
        (b"\xf3\x0f\x6f\x00", set()),  # movdqu xmm0, [rax]
        (b"\xf3\xc3", set()),
    ],
)
def test_a_repeated_instruction_has_changed_the_registers_that_it_counts_with(tmp_path, code, changed):
    registers = {"rax": 1, "rbx": 2, "rcx": 3, "rsi": 4, "rdi": 5}
    items = [Local(name, "__int64", (Place(0, 0x40, Register[name.upper()]),)) for name in registers]
    found = stopped_at(tmp_path, X64, code, *items, **registers)
    if code == b"\xf3\xc3":
        assert {variable.reason for variable in found.values()} == {LEFT}
        return
    assert {name: found[name].reason for name in registers if found[name].reason} == {
        name: changing(name) for name in changed
    }


def test_a_repeated_instruction_of_x86(tmp_path):
    kept, lost = (Local(name, "int", (Place(0, 0x40, Register[name.upper()]),)) for name in ("ebx", "edi"))
    found = stopped_at(tmp_path, X86, b"\xf3\xab", kept, lost, ebx=7, edi=8)
    assert (found["ebx"].text, found["edi"].reason) == ("7", changing("edi"))


BY_RSP = Local("n", "int", (Place(0, 0x40, Register.RSP, 8),))
BY_ESP = Local("n", "int", (Place(0, 0x40, Register.ESP, 8),))
FRAME, NO_FRAME = FrameInfo(0x28, saved_registers=8), FrameInfo()


@pytest.mark.parametrize(
    ("machine", "code", "slot", "is_left"),
    [
        (X64, b"\x48\xff\x60\x18", STACK, True),  # jmp qword ptr [rax+18h]
        (X64, b"\x48\xff\xe0", STACK, True),  # jmp rax
        (X64, b"\x5b\x5f\xff\x25\x00\x00\x00\x00", STACK + 16, True),  # pop rbx; pop rdi; jmp [import]
        (X64, b"\x5b\xe9\x00\x01\x00\x00", STACK + 8, True),  # pop rbx; jmp to another function
        (X64, b"\xe9\x00\x01\x00\x00", STACK, True),
        (X64, b"\xeb\x10", STACK + 0x30, False),  # a jump inside the function
        (X64, b"\xff\x24\xc8", STACK + 0x30, False),  # jmp [rax+rcx*8]: a switch
        (X64, b"\xff\xe0", STACK + 0x30, False),
        (X64, b"\xff\xe0", STACK, True),
        (X86, b"\xff\x60\x18", STACK, True),  # jmp dword ptr [eax+18h]
        (X86, b"\x5e\x5d\xff\x60\x04", STACK + 8, True),  # pop esi; pop ebp; jmp [eax+4]
        (X86, b"\xff\x24\x85\x00\x10\x40\x00", STACK + 0x30, False),  # jmp table[eax*4]
        (X86, b"\xff\x24\x85\x00\x10\x40\x00", STACK, True),
        (X86, b"\xff\x25\x00\x10\x40\x00", STACK, True),  # jmp [import]
        (X86, b"\x5e\xe9\x00\x01\x00\x00", STACK + 4, True),
        (X86, b"\x5e\x5d\xeb\x10", STACK + 8, True),  # pop esi; pop ebp; jmp inside: the frame of a branch ends
        (X86, b"\x59\xeb\x10", STACK + 0x30, False),  # pop ecx: the argument of a function that was called
        (X86, b"\x5d\x8d\x61\xfc\xc3", STACK + 4, True),  # pop ebp; lea esp, [ecx-4]; ret
        (X64, b"\x5b\xc5\xf8\x77\xc3", STACK + 8, True),  # pop rbx; vzeroupper; ret
        (X64, b"\x5b\x41\x5c\xc5\xf8\x77\xe9\x00\x01\x00\x00", STACK + 16, True),
    ],
)
def test_a_function_that_ends_with_a_jump_has_left_its_frame(tmp_path, machine, code, slot, is_left):
    """clang calls the last function of another by a jump: the stack is that of the caller, and the jump may fault."""
    item = BY_RSP if machine == X64 else BY_ESP
    found = stopped_at(tmp_path, machine, code, FRAME, item, slot=slot)["n"]
    assert (found.reason, bool(found.text)) == ((LEFT, False) if is_left else ("", True))


@pytest.mark.parametrize(("machine", "code"), [(X64, b"\x48\xff\x60\x18"), (X86, b"\xff\x60\x18")])
def test_a_function_without_a_frame_has_nothing_to_leave(tmp_path, machine, code):
    item = Local("object", "int", (Place(0, 0x40, Register.ECX),))
    found = stopped_at(tmp_path, machine, code, NO_FRAME, item, slot=STACK, **{"rcx" if machine == X64 else "ecx": 5})
    assert found["object"].text == "5"


def test_where_the_code_is_absent_nothing_is_known(tmp_path):
    it = described(tmp_path, Local("n", "int", (Place(0, 0x40, Register.ESI),)), has_code=False)
    found = it.variables(it.frame(AT, esi=5, is_interrupted=True))
    assert found["n"].reason == "the code at which it stopped is not in the dump"
