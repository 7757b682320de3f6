# SPDX-License-Identifier: Apache-2.0
"""Each rule of the x64 walk on a stack small enough to read. What is expected is a label or a value put there."""

from __future__ import annotations

import struct

import pytest

from tests.forge.stacks import Label
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import RBP, RBX, RDI, RSI
from tests.unwind.x64.scene import BASE, BODY, PUSH_RBX_SUB_20, PUSH_RBX_SUB_20_INFO, STACK, Scene, gpr, named
from throwstack.core.frames import End, StackBounds, Trust, Walk


def assert_reaches_caller(walk: Walk, scene: Scene, sp: Label) -> None:
    callee, caller = walk.frames
    assert (callee.return_address, callee.return_slot) == (scene.return_address, int(sp) - 8)
    assert (caller.ip, caller.sp, caller.child_sp) == (scene.return_address, int(sp), int(sp))
    assert (caller.return_address, caller.return_slot) == (0, int(sp) + 0x28)
    assert walk.end is End.THREAD_START
    assert walk.is_complete


def test_the_caller_of_a_leaf_function_is_found_at_rsp() -> None:
    scene = Scene(BODY)
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee + 3, rsp=sp, rbx=1, rbp=2, rax=3, r12=4)
    assert_reaches_caller(walk, scene, caller_sp)
    assert [frame.trust for frame in walk.frames] == [Trust.CONTEXT, Trust.CFI]
    # Nonvolatile registers are the caller's; rax may be anything after a call.
    assert (gpr(walk, 1, "rbx"), gpr(walk, 1, "rbp"), gpr(walk, 1, "r12")) == (1, 2, 4)
    assert gpr(walk, 1, "rax") is None


@pytest.mark.parametrize(
    ("offset", "pushed"),
    [(0, False), (1, True)],
)
def test_a_frame_interrupted_in_its_prologue_is_unwound(offset: int, pushed: bool) -> None:
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp)
    if pushed:
        scene.stack.d64(0x5A5A)
    scene.stack.d64(scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee + offset, rsp=sp, rbx=0x5A5A if not pushed else 0xBAD)
    assert_reaches_caller(walk, scene, caller_sp)
    assert gpr(walk, 1, "rbx") == 0x5A5A


def test_a_frame_interrupted_after_its_prologue_is_unwound() -> None:
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).zeros(0x20).d64(0x5A5A, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee + 5, rsp=sp, rbx=0xBAD)
    assert_reaches_caller(walk, scene, caller_sp)
    assert gpr(walk, 1, "rbx") == 0x5A5A


@pytest.mark.parametrize("size", [8, 0x80, 0x88, 0x2000])
def test_allocations_of_every_size_are_undone(size: int) -> None:
    scene = Scene(BODY, asm.unwind_info([asm.alloc(0, size)]))
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x11000).mark(sp).zeros(size).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    assert_reaches_caller(scene.walk(rip=scene.callee, rsp=sp), scene, caller_sp)


@pytest.mark.parametrize("is_far", [False, True])
def test_registers_saved_by_mov_are_restored(is_far: bool) -> None:
    """Displacements count from rsp as it is in the frame, however far undoing has got."""
    codes = [
        asm.save_nonvol(0, RSI, 0x10, far=is_far),
        asm.save_xmm128(0, 6, 0x20, far=is_far),
        asm.alloc(0, 0x30),
        asm.save_nonvol(0, RDI, 0x48, far=is_far),
    ]
    scene = Scene(BODY, asm.unwind_info(codes))
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).zeros(0x10).d64(0x51).zeros(0x18).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    scene.stack.at(int(sp) + 0x48).d64(0xD1)
    walk = scene.walk(rip=scene.callee, rsp=sp, rsi=0xBAD, rdi=0xBAD)
    assert_reaches_caller(walk, scene, caller_sp)
    assert (gpr(walk, 1, "rsi"), gpr(walk, 1, "rdi")) == (0x51, 0xD1)


def dynamic_stack() -> tuple[Scene, Label, Label]:
    """push rbp; sub rsp,40h; lea rbp,[rsp+20h]; mov [rsp+38h],rsi; then an alloca of unknown size."""
    codes = [asm.save_nonvol(14, RSI, 0x38), asm.set_fpreg(10), asm.alloc(5, 0x40), asm.push_nonvol(1, RBP)]
    prologue = b"\x55\x48\x83\xec\x40\x48\x8d\x6c\x24\x20\x48\x89\x74\x24\x38"
    info = asm.unwind_info(codes, len(prologue), frame_register=RBP, frame_offset=0x20)
    scene = Scene(prologue + BODY, info)
    rbp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).zeros(0x20).mark(rbp).zeros(0x18).d64(0x51).zeros(0).d64(0xB9, scene.return_address)
    scene.stack.at(int(rbp) + 0x18).d64(0x51).d64(0xB9, scene.return_address)
    scene.caller_frame(caller_sp)
    return scene, rbp, caller_sp


def test_frame_register_of_a_dynamic_stack() -> None:
    scene, rbp, caller_sp = dynamic_stack()
    walk = scene.walk(rip=scene.callee + 16, rsp=0x11230, rbp=rbp, rsi=0xBAD)
    assert_reaches_caller(walk, scene, caller_sp)
    assert (gpr(walk, 1, "rbp"), gpr(walk, 1, "rsi")) == (0xB9, 0x51)


def test_frame_register_that_is_not_known_ends_the_walk() -> None:
    scene, _, _ = dynamic_stack()
    walk = scene.walk(rip=scene.callee + 16, rsp=0x11230)
    assert walk.end is End.UNKNOWN_REGISTER
    assert walk.detail.startswith("rbp")
    assert (len(walk.frames), walk.frames[0].return_address) == (1, None)


def test_frame_register_that_points_below_the_stack_pointer_makes_no_progress() -> None:
    scene, _, _ = dynamic_stack()
    scene.stack.at(0x10100).d64(scene.return_address)
    walk = scene.walk(rip=scene.callee + 16, rsp=0x11230, rbp=0x10100 - 0x28)
    assert walk.end is End.NO_PROGRESS


@pytest.mark.parametrize("has_error_code", [False, True])
def test_machine_frame_makes_the_next_frame_an_interrupted_one(has_error_code: bool) -> None:
    """The code that was interrupted is in its prologue, where the rip of a frame that has called can hardly be."""
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
    codes = [asm.save_nonvol(0, RBX, 0x10), asm.alloc(0, 0x30), asm.push_machframe(0, has_error_code=has_error_code)]
    dispatcher = scene.add("dispatcher", BODY, asm.unwind_info(codes))
    sp, slot, interrupted_sp, caller_sp = Label(), Label(), Label(), Label()
    scene.stack.at(0x13000).mark(sp).zeros(0x10).d64(0x77).zeros(0x18)
    if has_error_code:
        scene.stack.d64(0xE)
    scene.stack.mark(slot).d64(scene.callee + 1, 0x33, 0x246).d64(interrupted_sp).d64(0x2B)
    scene.stack.at(0x13F00).mark(interrupted_sp).d64(0x5A5A, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=dispatcher + 2, rsp=sp, rbx=0xBAD, rax=1)
    assert [frame.ip for frame in walk.frames] == [dispatcher + 2, scene.callee + 1, scene.return_address]
    assert [frame.sp for frame in walk.frames] == [int(sp), int(interrupted_sp), int(caller_sp)]
    assert [frame.is_interrupted for frame in walk.frames] == [True, True, False]
    assert walk.frames[0].return_slot == int(slot)
    assert (gpr(walk, 1, "rbx"), gpr(walk, 1, "rax"), gpr(walk, 2, "rbx")) == (0x77, None, 0x5A5A)
    assert walk.is_complete


def test_chained_part_saves_on_top_of_its_primary_entry() -> None:
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
    entry = (asm.TEXT, asm.TEXT + 13, 0)
    part = scene.add("part", b"\x48\x89\x74\x24\x10" + BODY, b"")
    image = scene.image()
    # The primary entry's unwind RVA is only known now: take it from the table.
    (primary,) = [found for found in scene.table.entries if found[:2] == entry[:2]]
    scene._entries[-1] = (*scene._entries[-1][:2], asm.unwind_info([asm.save_nonvol(5, RSI, 0x10)], 5, chained=primary))
    assert len(image) == len(scene.image())
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).zeros(0x10).d64(0x51).zeros(8).d64(0x5A5A, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=part + 5, rsp=sp, rsi=0xBAD, rbx=0xBAD)
    assert_reaches_caller(walk, scene, caller_sp)
    assert (gpr(walk, 1, "rsi"), gpr(walk, 1, "rbx")) == (0x51, 0x5A5A)
    # Before its own save has run, only the primary entry's codes hold.
    walk = scene.walk(rip=part, rsp=sp, rsi=0x99, rbx=0xBAD)
    assert (gpr(walk, 1, "rsi"), gpr(walk, 1, "rbx")) == (0x99, 0x5A5A)


def test_return_address_past_the_end_of_a_function_whose_last_call_never_returns() -> None:
    scene = Scene(BODY)
    # sub rsp,28h; call callee, and nothing after it: the return address is the next function's.
    displacement = struct.pack("<i", scene.callee - (scene.callee + 0x30 + 9))
    scene.code.emit(bytes(0x30 - (scene.code.here - asm.TEXT)))
    raiser = scene.add("raiser", b"\x48\x83\xec\x28\xe8" + displacement, asm.unwind_info([asm.alloc(4, 0x28)], 4))
    assert raiser == scene.callee + 0x30
    scene.code.emit(b"\x55")
    after = scene.code.here
    scene._entries.append((after - 1, after + 7, asm.unwind_info([asm.push_nonvol(1, RBP)], 1)))
    scene.code.emit(bytes(8))
    sp = Label()
    scene.stack.at(0x13F00).mark(sp).d64(raiser + 9).zeros(0x28).d64(0)
    walk = scene.walk(rip=scene.callee, rsp=sp)
    assert [frame.ip for frame in walk.frames] == [scene.callee, raiser + 9]
    assert walk.is_complete


def test_a_call_inside_a_prologue_undoes_only_the_codes_before_it() -> None:
    """A frame entered by a call may not have finished its prologue: __chkstk is called from there."""
    scene = Scene(BODY)
    # push rbx; call callee; sub rsp,rax: the allocation comes after the call.
    displacement = struct.pack("<i", -0x30 - 6)
    scene.code.emit(bytes(0x30 - (scene.code.here - asm.TEXT)))
    codes = [asm.alloc(9, 0x2000), asm.push_nonvol(1, RBX)]
    probing = scene.add("probing", b"\x53\xe8" + displacement + b"\x48\x2b\xe0" + BODY, asm.unwind_info(codes, 9))
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).d64(probing + 6, 0x5A5A, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee, rsp=sp, rbx=0xBAD)
    assert [frame.ip for frame in walk.frames] == [scene.callee, probing + 6, scene.return_address]
    assert gpr(walk, 2, "rbx") == 0x5A5A
    assert walk.is_complete


@pytest.mark.parametrize("rip", [0, 0x4141414141414141, 0xDEAD0000])
def test_call_through_a_bad_pointer(rip: int) -> None:
    scene = Scene(BODY)
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=rip, rsp=sp, rbx=7)
    assert_reaches_caller(walk, scene, caller_sp)
    assert walk.frames[1].trust is Trust.SCAN
    assert "bad pointer" in walk.frames[1].note
    assert gpr(walk, 1, "rbx") == 7


HEAP = 0x21000000


@pytest.mark.parametrize(
    ("call", "registers"),
    [
        (b"\xff\xd0", {"rax": HEAP + 8}),  # call rax
        (b"\x41\xff\x54\x24\x10", {"r12": HEAP}),  # call [r12+10h]
        (b"\xff\x14\xc8", {"rax": HEAP, "rcx": 2}),  # call [rax+rcx*8]
        (b"\xff\x54\x24\x20", {}),  # call [rsp+20h]
    ],
)
def test_call_into_data_is_known_by_its_operand(call: bytes, registers: dict[str, int]) -> None:
    """Readable memory outside the images may be generated code. Its rbp chain would skip the caller here."""
    scene = Scene(BODY)
    scene.segments[HEAP] = struct.pack("<QQQ", 0, 0, HEAP + 8)
    calling = scene.add("calling", b"\x48\x83\xec\x28" + call + BODY, asm.unwind_info([asm.alloc(4, 0x28)], 4))
    sp, rbp, caller_sp = Label(), Label(), Label()
    scene.stack.at(0x13E00).mark(sp).d64(calling + 4 + len(call)).zeros(0x28).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    scene.stack.at(int(sp) + 8 + 0x20).d64(HEAP + 8)
    scene.stack.at(0x13F80).mark(rbp).d64(0, scene.return_address)
    walk = scene.walk(rip=HEAP + 8, rsp=sp, rbp=rbp, **registers)
    assert [frame.ip for frame in walk.frames][:3] == [HEAP + 8, calling + 4 + len(call), scene.return_address]
    assert "bad pointer" in walk.frames[1].note
    # To another address that call did not go.
    walk = scene.walk(rip=HEAP + 9, rsp=sp, rbp=rbp, **registers)
    assert walk.frames[1].trust is Trust.FRAME_POINTER


def test_a_jump_to_no_code_without_a_return_address_ends_the_walk() -> None:
    scene = Scene(BODY)
    scene.stack.at(0x13F00).d64(scene.return_address + 1)
    walk = scene.walk(rip=0, rsp=0x13F00)
    assert (walk.end, len(walk.frames)) == (End.NO_RETURN_ADDRESS, 1)


JIT = 0x20000000
# push rbp; mov rbp,rsp; sub rsp,30h; call +0; nop
JIT_CODE = b"\x55\x48\x8b\xec\x48\x83\xec\x30\xe8\x00\x00\x00\x00\x90" + BODY


def test_generated_code_by_its_frame_pointer() -> None:
    scene = Scene(BODY)
    scene.segments[JIT] = JIT_CODE
    sp, rbp, caller_sp = Label(), Label(), Label()
    scene.stack.at(0x13E00).mark(sp).d64(JIT + 13).zeros(0x30).mark(rbp).d64(0xB9, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee, rsp=sp, rbp=rbp, rbx=7)
    assert [frame.ip for frame in walk.frames] == [scene.callee, JIT + 13, scene.return_address]
    assert [frame.trust for frame in walk.frames] == [Trust.CONTEXT, Trust.CFI, Trust.FRAME_POINTER]
    assert walk.frames[2].note == "no unwind data"
    # What the generated code did with rbx, nobody knows.
    assert (gpr(walk, 2, "rbp"), gpr(walk, 2, "rbx")) == (0xB9, None)
    assert walk.is_complete


def test_generated_code_by_a_scan() -> None:
    scene = Scene(BODY)
    scene.segments[JIT] = JIT_CODE
    sp, caller_sp = Label(), Label()
    # Neither a pointer into code that no call precedes nor a small number is a return address.
    scene.stack.at(0x13E00).mark(sp).d64(JIT + 13, scene.callee + 2, 5).zeros(0x20).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee, rsp=sp, rbp=5)
    assert [frame.trust for frame in walk.frames] == [Trust.CONTEXT, Trust.CFI, Trust.SCAN]
    assert walk.frames[2].sp == int(caller_sp)
    assert walk.end is End.LOST_RETURN_ADDRESS
    assert f"no unwind data covers {JIT + 13:#x}" in walk.detail


def test_function_without_entry_that_is_no_leaf_is_guessed_at() -> None:
    scene = Scene(BODY)
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).d64(scene.callee + 2, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee + 3, rsp=sp)
    assert [frame.trust for frame in walk.frames] == [Trust.CONTEXT, Trust.SCAN]
    assert walk.frames[1].sp == int(caller_sp)


def test_a_return_address_outside_code_ends_the_walk() -> None:
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
    scene.stack.at(0x13F00).zeros(0x28).d64(BASE + 0x10)  # in the headers
    walk = scene.walk(rip=scene.callee + 5, rsp=0x13F00)
    assert (walk.end, len(walk.frames), walk.frames[0].return_address) == (End.BAD_RETURN_ADDRESS, 1, None)
    assert walk.detail == f"{BASE + 0x10:#x}"


def test_a_walk_ends_at_the_end_of_the_stack() -> None:
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
    scene.segments[STACK.base] = struct.pack("<Q", scene.return_address) * 8
    walk = scene.walk(rip=scene.callee + 5, rsp=STACK.base - 0x28)
    assert walk.end is End.STACK_BOUND


def test_a_stack_page_that_is_missing_ends_the_walk() -> None:
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
    scene.missing.append(0x13000)
    walk = scene.walk(rip=scene.callee + 5, rsp=0x12FE8)
    assert (walk.end, walk.detail) == (End.UNREADABLE, "return address at 0x13010")


def test_register_saved_where_memory_is_missing_is_unknown() -> None:
    scene = Scene(BODY, asm.unwind_info([asm.save_nonvol(0, RSI, 0x1000), asm.alloc(0, 8)]))
    scene.missing.append(0x13000)
    caller_sp = Label()
    scene.stack.at(0x12008).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee, rsp=0x12000, rsi=0xBAD)
    assert (walk.frames[1].ip, walk.frames[1].sp) == (scene.return_address, int(caller_sp))
    assert gpr(walk, 1, "rsi") is None


def test_a_fiber_s_stack_is_walked_although_it_is_not_the_thread_s() -> None:
    scene = Scene(BODY)
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(bounds=StackBounds(0x500000, 0x510000), rip=scene.callee, rsp=sp)
    assert_reaches_caller(walk, scene, caller_sp)
    assert walk.frames[0].note == "stack pointer outside the thread's stack"


def test_a_walk_ends_at_its_frame_limit() -> None:
    scene = Scene(BODY)
    for slot in range(0x12000, 0x13FF8, 0x30):
        scene.stack.at(slot).d64(scene.return_address)
    walk = scene.unwinder(frame_limit=10).walk(named(rip=scene.callee, rsp=0x12000), STACK)
    assert (walk.end, walk.detail, len(walk.frames)) == (End.FRAME_LIMIT, "10", 10)


def test_the_start_of_a_thread_ends_the_walk_whatever_is_above_it() -> None:
    scene = Scene(BODY, name="ntdll.dll")
    start = scene.add("start", BODY, asm.unwind_info([asm.alloc(0, 0x28)]))
    scene.exports["RtlUserThreadStart"] = start - BASE
    scene.stack.at(0x13E00).zeros(0x28).d64(scene.return_address)
    walk = scene.walk(rip=start + 4, rsp=0x13E00)
    assert (walk.end, len(walk.frames)) == (End.THREAD_START, 1)
    assert walk.detail == "RtlUserThreadStart"


def test_user_registers_from_the_kernel_s_stack() -> None:
    """A called kernel function saved rbx; the entry code's frame is a machine frame that leads to the user's stack."""
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
    entry = scene.add(
        "entry", b"\xe8\x00\x00\x00\x00" + BODY, asm.unwind_info([asm.alloc(0, 0x10), asm.push_machframe(0)])
    )
    frame = Label()
    scene.stack.at(0x13E00).zeros(0x20).d64(0x5A5A, entry + 5).zeros(0x10)
    scene.stack.mark(frame).d64(0x7FFE1234, 0x33, 0x246, 0x5FF000, 0x2B)
    step = scene.unwinder().step_beyond(
        named(rip=scene.callee + 6, rsp=0x13E00, rbx=0xBAD, r12=0x12), STACK, int(frame) - 0x10
    )
    assert (step.registers.ip, step.registers.sp, step.slot) == (0x7FFE1234, 0x5FF000, int(frame))
    assert step.is_interrupted
    assert (step.registers.gpr[RBX], step.registers.gpr[12]) == (0x5A5A, 0x12)
