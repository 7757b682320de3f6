# SPDX-License-Identifier: Apache-2.0
"""Return addresses that were overwritten, and threads that returned to where no code is: never a complete walk."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.forge.stacks import Label
from tests.support.forged_stacks import forged_stacks
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import RBX
from tests.unwind.x64.scene import BASE, BODY, PUSH_RBX_SUB_20, PUSH_RBX_SUB_20_INFO, Scene
from throwstack.core.frames import End, StackBounds, Trust
from throwstack.core.registers import Arch

GARBAGE = 0x4141414141414141


@pytest.mark.parametrize("value", [0, GARBAGE, 0x10000])
def test_an_overrun_that_wrote_over_a_return_address_is_said_and_frames_above_are_guessed(value: int) -> None:
    """push rbx; sub rsp,100h: buffer, saved rbx and return address are overwritten; three callers are left."""
    info = asm.unwind_info([asm.alloc(8, 0x100), asm.push_nonvol(1, RBX)], 8)
    scene = Scene(bytes.fromhex("534881ec00010000") + BODY, info)
    sp, slot, second, third = Label(), Label(), Label(), Label()
    scene.stack.at(0x12E00).mark(sp).zeros(0x108).mark(slot).d64(value)
    scene.stack.zeros(0x28).d64(scene.return_address)
    scene.stack.mark(second).zeros(0x28).d64(scene.return_address)
    scene.caller_frame(third)
    walk = scene.walk(rip=scene.callee + 9, rsp=sp, rbx=1)
    assert [frame.sp for frame in walk.frames] == [int(sp), int(second), int(third)]
    assert [frame.trust for frame in walk.frames[1:]] == [Trust.SCAN, Trust.CFI]
    assert walk.end is End.LOST_RETURN_ADDRESS
    assert (
        walk.detail == walk.frames[1].note == f"the return address at {int(slot):#x} was overwritten: it is {value:#x}"
    )


def test_an_overwritten_return_address_with_nothing_above_it_ends_the_walk() -> None:
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO, name="ntdll.dll")
    scene.exports["RtlUserThreadStart"] = 0x1800
    walk = scene.walk(rip=scene.callee + 5, rsp=0x13F00)
    assert (walk.end, len(walk.frames)) == (End.LOST_RETURN_ADDRESS, 1)
    assert (walk.frames[0].return_address, walk.frames[0].return_slot) == (0, 0x13F28)


def test_where_no_start_routine_is_known_a_zero_at_the_base_is_the_start() -> None:
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
    assert scene.walk(rip=scene.callee + 5, rsp=0x13F00).is_complete
    fiber = StackBounds(0x500000, 0x510000)
    assert scene.walk(rip=scene.callee + 5, rsp=0x13F00, bounds=fiber).is_complete


@pytest.mark.parametrize("top", [0, 1, BASE + 0x1001])
@pytest.mark.parametrize("rip", [0x7FFA00001234, GARBAGE])
def test_a_return_to_where_no_code_is(top: int, rip: int) -> None:
    """The return address is gone: the word on top of the stack is a local. The caller's own frame is further up."""
    scene = Scene(BODY)
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(sp).d64(top).zeros(0x28).d64(1).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=rip, rsp=sp, rbp=0, rax=0)
    assert [(frame.ip, frame.sp) for frame in walk.frames] == [
        (rip, int(sp)),
        (scene.return_address, int(caller_sp)),
    ]
    assert (walk.frames[1].trust, walk.frames[1].note) == (Trust.SCAN, "jump or return through a bad pointer")
    assert walk.end is End.LOST_RETURN_ADDRESS
    assert f"{rip:#x} is not code" in walk.detail


def test_the_first_word_of_a_frame_that_cannot_be_read_is_no_reason_to_guess() -> None:
    scene = Scene(BODY)
    scene.missing.append(0x13000)
    walk = scene.walk(rip=0xDEAD0000, rsp=0x13F00)
    assert (walk.end, len(walk.frames)) == (End.UNREADABLE, 1)


@pytest.mark.parametrize(("above", "is_complete"), [(0x28, True), (0x80, True), (0x88, False), (0x800, False)])
def test_a_coroutine_s_stack_may_be_in_the_teb_and_start_in_any_function_of_the_program(above, is_complete) -> None:
    """A library lays out the first frame at the base. With more above it, a memset has wiped callers."""
    stack = next(stack for stack in forged_stacks() if stack.name == "service-x64 0x14bc x64 waits")
    routine = [frame.symbol.partition("+")[0] for frame in stack.frames].index("ledgersvc!ledger::Service::Main")
    slot = stack.frames[routine + 1].child_sp - 8
    base = slot + 8 + above
    coroutine = replace(stack, bounds=StackBounds(stack.bounds.limit, base))
    walk = coroutine.walk({slot: bytes(base - slot)})
    assert len(walk.frames) == routine + 1
    assert walk.is_complete is is_complete


X64_STACKS = {stack.name: stack for stack in forged_stacks() if stack.arch is Arch.X64}


@pytest.mark.parametrize("stack", X64_STACKS.values(), ids=X64_STACKS)
def test_zeros_from_a_return_address_up_to_the_base_are_never_the_start_of_a_thread(stack) -> None:
    """memset over all that is left of the stack, from one of its frames on; the last one begins the stack."""
    base = stack.bounds.base
    for frame, caller in pairwise(stack.walk().frames):
        if not caller.is_interrupted:
            walk = stack.walk({frame.return_slot: bytes(base - frame.return_slot)})
            assert not walk.is_complete, hex(frame.ip)
