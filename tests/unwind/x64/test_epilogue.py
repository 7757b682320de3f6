# SPDX-License-Identifier: Apache-2.0
"""Epilogues: which instructions are one, and which only look like one."""

from __future__ import annotations

import struct

import pytest

from tests.forge.stacks import Label
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import R12, RBP, RBX
from tests.unwind.x64.scene import BASE, Scene
from throwstack.core.frames import End

# push rbx; push r12; sub rsp,20h
PROLOGUE = b"\x53\x41\x54\x48\x83\xec\x20"
CODES = [asm.alloc(7, 0x20), asm.push_nonvol(3, R12), asm.push_nonvol(1, RBX)]
RELEASE, POPS = b"\x48\x83\xc4\x20", b"\x41\x5c\x5b"
JUMP_SIZE = 5


def stack_at(scene: Scene, steps: int) -> tuple[Label, Label]:
    """Write the stack as it is after that many of the epilogue's instructions (release, two pops) have run."""
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp)
    if steps < 1:
        scene.stack.zeros(0x20)
    for value in (0x12, 0xB)[max(steps - 1, 0) :]:
        scene.stack.d64(value)
    scene.stack.d64(scene.return_address)
    scene.caller_frame(caller_sp)
    return sp, caller_sp


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "ending",
    [
        b"\xc3",
        b"\xf3\xc3",
        b"\xc2\x00\x00",
        b"\xc5\xf8\x77\xc3",  # vzeroupper; ret: some compilers put it after the pops
        b"\x48\xff\xe0",  # rex.w jmp rax
        b"\x48\xff\x25\x00\x00\x00\x00",
        b"\xff\x25\x00\x00\x00\x00",  # jmp [rip+0]: an import
        b"\xe9" + struct.pack("<i", 0x1000),  # after this function
        b"\xe9" + struct.pack("<i", -len(PROLOGUE + RELEASE + POPS) - JUMP_SIZE),  # its own begin: recursion
    ],
)
def test_each_instruction_of_each_form_of_epilogue(ending: bytes, steps: int) -> None:
    scene = Scene(PROLOGUE + RELEASE + POPS + ending, asm.unwind_info(CODES, 7))
    sp, caller_sp = stack_at(scene, steps)
    known = {"r12": 0x12, "rbx": 0xB} if steps == 3 else {"r12": 0x12} if steps == 2 else {}
    walk = scene.walk(rip=scene.callee + 7 + (0, 4, 6, 7)[steps], rsp=sp, **{"r12": 0xBAD, "rbx": 0xBAD, **known})
    assert walk.end is End.THREAD_START
    _, caller = walk.frames
    assert (caller.ip, caller.sp) == (scene.return_address, int(caller_sp))
    assert (caller.registers.gpr[R12], caller.registers.gpr[RBX]) == (0x12, 0xB)


@pytest.mark.parametrize(
    "instruction",
    [
        b"\xff\xe0",  # jmp rax: a switch
        b"\xeb\xf0",  # jmp back into the function
        b"\xc2\x10\x00",  # ret 10h: no calling convention of x64 has it
        b"\x8f\x00",  # pop [rax]
        b"\x5c\xc3",  # pop rsp; ret
        b"\xff\xd0\xc3",  # call rax; ret
    ],
)
def test_a_body_that_looks_like_an_epilogue_is_none(instruction: bytes) -> None:
    scene = Scene(PROLOGUE + b"\x90" * 16 + instruction, asm.unwind_info(CODES, 7))
    sp, caller_sp = stack_at(scene, 0)
    walk = scene.walk(rip=scene.callee + 7 + 16, rsp=sp)
    assert (walk.frames[1].ip, walk.frames[1].sp) == (scene.return_address, int(caller_sp))


def test_an_epilogue_may_release_the_stack_through_the_frame_register() -> None:
    """push rbp; sub rsp,20h; lea rbp,[rsp+10h] … lea rsp,[rbp+10h]; pop rbp; ret, with a dynamic stack."""
    codes = [asm.set_fpreg(10), asm.alloc(5, 0x20), asm.push_nonvol(1, RBP)]
    info = asm.unwind_info(codes, 10, frame_register=RBP, frame_offset=0x10)
    code = b"\x55\x48\x83\xec\x20\x48\x8d\x6c\x24\x10" + b"\x48\x8d\x65\x10\x5d\xc3"
    scene = Scene(code, info)
    rbp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(rbp).zeros(0x10).d64(0xB9, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee + 10, rsp=0x13000, rbp=rbp)
    assert (walk.frames[1].sp, walk.frames[1].registers.bp) == (int(caller_sp), 0xB9)


def test_a_jump_to_a_cold_part_is_no_epilogue() -> None:
    """As GCC does it: the part has an entry of its own whose codes hold from its first byte."""
    scene = Scene(PROLOGUE + b"\xe9" + struct.pack("<i", 0x100 - 7 - 5), asm.unwind_info(CODES, 7))
    scene.code.emit(b"\xcc" * (0x100 - (scene.code.here - asm.TEXT)))
    at_once = [bytes([0]) + code[1:] for code in CODES]
    assert scene.add("cold", b"\x90\xc3", asm.unwind_info(at_once)) == scene.callee + 0x100
    sp, caller_sp = stack_at(scene, 0)
    walk = scene.walk(rip=scene.callee + 7, rsp=sp)
    assert (walk.frames[1].ip, walk.frames[1].sp) == (scene.return_address, int(caller_sp))


def version_2(distances: list[int], *, is_at_end: bool) -> bytes:
    return asm.unwind_info([asm.epilog(5, distances, is_at_end=is_at_end), *CODES], 7, version=2)


@pytest.mark.parametrize("is_marked", [True, False])
def test_version_2_names_the_jumps_that_end_an_epilogue(is_marked: bool) -> None:
    """pop r12; pop rbx; jmp rax, without the prefix by which version 1 would know it."""
    code = PROLOGUE + RELEASE + POPS + b"\xff\xe0" + b"\x90" * 8
    scene = Scene(code, version_2([len(POPS) + 2 + 8 if is_marked else 4], is_at_end=False))
    sp, caller_sp = stack_at(scene, 1)
    walk = scene.walk(rip=scene.callee + 11, rsp=sp)
    if is_marked:
        assert (walk.frames[1].ip, walk.frames[1].sp) == (scene.return_address, int(caller_sp))
    else:
        assert walk.frames[0].return_slot != int(caller_sp) - 8


def test_an_epilogue_with_iretq_takes_a_machine_frame() -> None:
    scene = Scene(PROLOGUE + b"\x48\xcf", asm.unwind_info(CODES, 7))
    interrupted_sp, caller_sp = Label(), Label()
    scene.stack.at(0x13E00).d64(scene.callee, 0x33, 0x246).d64(interrupted_sp).d64(0x2B)
    scene.stack.at(0x13F00).mark(interrupted_sp).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee + 7, rsp=0x13E00)
    assert [frame.ip for frame in walk.frames] == [scene.callee + 7, scene.callee, scene.return_address]
    assert [frame.is_interrupted for frame in walk.frames] == [True, True, False]


def test_a_frame_whose_code_is_not_readable_has_a_note() -> None:
    scene = Scene(PROLOGUE + RELEASE + POPS + b"\xc3", asm.unwind_info(CODES, 7))
    sp, caller_sp = stack_at(scene, 0)
    scene.missing.append(BASE + asm.TEXT)
    walk = scene.walk(rip=scene.callee + 7, rsp=sp)
    assert (walk.frames[1].ip, walk.frames[1].sp) == (scene.return_address, int(caller_sp))
    assert walk.frames[1].note == "code not readable, taken for no epilogue"
