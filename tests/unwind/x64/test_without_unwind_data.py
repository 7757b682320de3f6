# SPDX-License-Identifier: Apache-2.0
"""Code outside images, and code whose unwind data is not there: stubs, generated code, thunks into data."""

from __future__ import annotations

import struct

import pytest

from tests.forge.stacks import Label
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import RBP
from tests.unwind.x64.code_without_data import FRAME, JIT, RETURN, Protected, calling
from tests.unwind.x64.scene import BASE, BODY, STACK, Scene, gpr, named
from throwstack.core.frames import End, StackBounds, Trust
from throwstack.unwind.code_outside import OutsideFunction

STUB, HEAP = 0x180000000, 0x1F000000000
STUBS = {
    "Windows 7": "4c8bd1 b804000000 0f05 c3",
    "Windows 10": "4c8bd1 b804000000 f604250803fe7f01 7503 0f05 c3 cd2e c3",
}


@pytest.mark.parametrize("code", STUBS.values(), ids=STUBS)
@pytest.mark.parametrize("where", range(3))
def test_a_copy_of_a_system_call_s_stub_is_a_leaf(code: str, where: int) -> None:
    """rbp is the caller's frame pointer: by it, the caller of the stub would be left out."""
    stub = bytes.fromhex(code)
    offset = (0, 3, stub.index(b"\x0f\x05") + 2)[where]
    scene = Scene(BODY)
    in_hook = calling(scene, "hook", STUB)
    scene.segments[STUB] = stub
    sp, fp, caller_sp = Label(), Label(), Label()
    scene.stack.at(0x13E00).mark(sp).d64(in_hook).zeros(0x20).mark(fp).d64(0xB9, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=STUB + offset, rsp=sp, rbp=fp, rsi=0x51)
    assert [frame.ip for frame in walk.frames] == [STUB + offset, in_hook, scene.return_address]
    assert (walk.frames[1].trust, walk.frames[1].note) == (Trust.PROLOGUE, "system call's stub outside the images")
    assert (gpr(walk, 1, "rbp"), gpr(walk, 1, "rsi"), gpr(walk, 2, "rbp")) == (int(fp), 0x51, 0xB9)
    assert walk.is_complete


@pytest.mark.parametrize("distance", [0x100000, 32 << 20, 2 << 30])
def test_generated_code_is_not_bound_to_be_near(distance: int) -> None:
    scene = Scene(BODY)
    far = JIT + distance
    scene.segments[JIT] = FRAME + BODY
    scene.segments[far] = FRAME + b"\x48\xb8" + struct.pack("<Q", JIT) + b"\xff\xd0"
    sp, inner, outer, caller_sp = Label(), Label(), Label(), Label()
    scene.stack.at(0x13E00).mark(sp).zeros(0x20).mark(inner).d64(outer).d64(far + 20)
    scene.stack.zeros(0x20).mark(outer).d64(0).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=JIT + 8, rsp=sp, rbp=inner)
    assert [(frame.ip, frame.sp) for frame in walk.frames] == [
        (JIT + 8, int(sp)),
        (far + 20, int(inner) + 16),
        (scene.return_address, int(caller_sp)),
    ]
    assert [frame.trust for frame in walk.frames[1:]] == [Trust.FRAME_POINTER] * 2


def test_generated_code_that_can_be_followed_to_its_return_needs_no_frame_pointer() -> None:
    """rbp is the frame pointer of a function further out, which generated code without one leaves alone."""
    scene = Scene(BODY)
    scene.segments[JIT] = bytes.fromhex(
        "5356 4883ec28 ffd0 4883c428 5e5b c3"
    )  # push rbx, rsi; sub; call; add; pop; ret
    sp, caller_sp, further = Label(), Label(), Label()
    scene.stack.at(0x13D00).mark(sp).d64(JIT + 8).zeros(0x28).d64(0x51, 0xB8).d64(scene.return_address)
    scene.stack.mark(caller_sp).zeros(0x28).d64(scene.return_address)
    scene.caller_frame(Label())
    scene.stack.at(0x13F00).mark(further).d64(0, scene.return_address)
    walk = scene.walk(rip=scene.callee, rsp=sp, rbp=further, rsi=0xBAD)
    assert [frame.ip for frame in walk.frames][:3] == [scene.callee, JIT + 8, scene.return_address]
    assert walk.frames[2].trust is Trust.PROLOGUE
    assert walk.frames[2].sp == int(caller_sp)
    assert [gpr(walk, 2, name) for name in ("rbx", "rsi", "rbp")] == [0xB8, 0x51, int(further)]


class OneFunction:
    """A source that knows one function, without unwind data."""

    def __init__(self, *, has_frame_pointer: bool) -> None:
        self.known = OutsideFunction("known to a test", has_frame_pointer=has_frame_pointer)

    def function_at(self, address: int) -> OutsideFunction | None:
        return self.known if JIT <= address < JIT + 0x100 else None


@pytest.mark.parametrize("has_frame_pointer", [True, False])
def test_a_source_of_functions_says_which_rule_comes_first_and_is_named(has_frame_pointer: bool) -> None:
    """`add rsp,28h; ret` and the frame pointer lead to different words, both of them return addresses."""
    scene = Scene(BODY)
    scene.segments[JIT] = bytes.fromhex("ffd0 4883c428 c3")
    sp, fp, caller_sp = Label(), Label(), Label()
    scene.stack.at(0x13E00).mark(sp).d64(JIT + 2).zeros(0x28).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    scene.stack.at(0x13F00).mark(fp).d64(0xB9, scene.return_address)
    source = OneFunction(has_frame_pointer=has_frame_pointer)
    walk = scene.unwinder(sources=[source]).walk(named(rip=scene.callee, rsp=sp, rbp=fp), STACK)
    expected = (Trust.FRAME_POINTER, int(fp) + 16) if has_frame_pointer else (Trust.PROLOGUE, int(caller_sp))
    assert (walk.frames[2].trust, walk.frames[2].sp) == expected
    assert walk.frames[2].note == "known to a test"


THUNKS = {
    "adjustor": "488b01 ff6008",  # mov rax,[rcx]; jmp [rax+8]
    "second base": "4883e910 488b01 ff6018",  # sub rcx,10h; mov rax,[rcx]; jmp [rax+18h]
    "to a register": "488b01 488b4020 48ffe0",  # mov rax,[rcx]; mov rax,[rax+20h]; jmp rax
}


@pytest.mark.parametrize("code", THUNKS.values(), ids=THUNKS)
def test_a_virtual_call_through_a_thunk_into_data_does_not_skip_the_caller(code: str) -> None:
    scene = Scene(BODY)
    thunk = scene.add("thunk", bytes.fromhex(code), None)
    in_middle = calling(scene, "middle", thunk)
    scene.segments[HEAP] = bytes(0x1000)
    sp, fp, caller_sp = Label(), Label(), Label()
    scene.stack.at(0x13E00).mark(sp).d64(in_middle).zeros(0x20).mark(fp).d64(0xB9, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=HEAP + 0x40, rsp=sp, rbp=fp, rax=thunk, rcx=HEAP + 0x200)
    assert [frame.ip for frame in walk.frames] == [HEAP + 0x40, in_middle, scene.return_address]
    assert "bad pointer" in walk.frames[1].note
    assert gpr(walk, 1, "rbp") == int(fp)


@pytest.mark.parametrize("code", ["488b01 c3", "55 ff6008", "488b01 ff2500000000", "e800000000"])
def test_what_is_no_thunk_may_have_moved_the_stack(code: str) -> None:
    """A function that returns, pushes, jumps to a known place or calls: the frame pointer is believed then."""
    scene = Scene(BODY)
    other = scene.add("other", bytes.fromhex(code), None)
    in_middle = calling(scene, "middle", other)
    scene.segments[HEAP] = bytes(0x1000)
    sp, fp, caller_sp = Label(), Label(), Label()
    scene.stack.at(0x13E00).mark(sp).d64(in_middle).zeros(0x20).mark(fp).d64(0xB9, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=HEAP + 0x40, rsp=sp, rbp=fp, rax=other)
    assert walk.frames[1].trust is Trust.FRAME_POINTER


def test_in_a_region_where_no_code_can_run_nothing_has_run() -> None:
    """The same stack with and without the region's protection: generated code, or a call into data."""
    scene = Scene(BODY)
    scene.segments[HEAP] = bytes(0x1000)
    sp, fp, caller_sp = Label(), Label(), Label()
    scene.stack.at(0x13E00).mark(sp).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    scene.stack.at(0x13F80).mark(fp).d64(0, scene.return_address)
    for is_executable, trust in ((False, Trust.SCAN), (True, Trust.FRAME_POINTER)):
        unwinder = scene.unwinder(regions=Protected(x1F000000000=is_executable))
        walk = unwinder.walk(named(rip=HEAP, rsp=sp, rbp=fp), STACK)
        assert walk.frames[1].trust is trust


def test_generated_code_may_have_called_what_was_freed_since() -> None:
    """`call rel32` from one generated function to another, which the JIT compiler has thrown away meanwhile."""
    scene = Scene(BODY)
    freed = JIT + 0x5000
    scene.segments[JIT] = (FRAME + b"\xe8" + struct.pack("<i", freed - JIT - 13) + RETURN).ljust(0x1000, b"\xcc")
    sp, fp, caller_sp = Label(), Label(), Label()
    scene.stack.at(0x13E00).mark(sp).d64(JIT + 13).zeros(0x20).mark(fp).d64(0, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.unwinder(regions=Protected(x20000000=True)).walk(named(rip=freed, rsp=sp, rbp=fp), STACK)
    assert [frame.ip for frame in walk.frames] == [freed, JIT + 13, scene.return_address]
    assert walk.frames[1].trust is Trust.SCAN
    assert walk.is_complete


def test_a_scan_takes_words_outside_the_images_only_where_code_can_run() -> None:
    """`call rax` before both words: one page is data, the other is code."""
    scene = Scene(BODY)
    data, code = JIT, JIT + 0x1000
    scene.segments[data] = (b"\xff\xd0" * 8).ljust(0x1000, b"\xcc") + b"\xff\xd0" * 8
    scene.stack.at(0x13E00).d64(5, data + 4, code + 4)
    walk = scene.unwinder(regions=Protected(x20000000=False, x20001000=True)).walk(
        named(rip=code + 2, rsp=0x13E00), STACK
    )
    assert (walk.frames[1].ip, walk.frames[1].sp) == (code + 4, 0x13E18)
    assert walk.frames[1].trust is Trust.SCAN


@pytest.mark.parametrize("other", [0x8000, 0x30000])
@pytest.mark.parametrize("recorded", ["the thread's stack", "the other stack"])
def test_a_stack_that_was_switched_is_switched_back_by_the_frame_register(other: int, recorded: str) -> None:
    """push rbp; mov rbp,rsp; mov rsp,rcx; call rdx; mov rsp,rbp; pop rbp; ret: the caller is on the first stack."""
    info = asm.unwind_info([asm.set_fpreg(4), asm.push_nonvol(1, RBP)], 4, frame_register=RBP)
    scene = Scene(bytes.fromhex("55 4889e5 4889cc ffd2 4889ec 5d c3"), info)
    leaf = scene.add("leaf", BODY + b"\xc3", None)
    fp, caller_sp = Label(), Label()
    scene.stack.at(0x13F00).mark(fp).d64(0x66).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    scene.segments[other] = struct.pack("<Q", scene.callee + 9).ljust(0x1000, b"\0")
    bounds = STACK if recorded == "the thread's stack" else StackBounds(other, other + 0x1000)
    walk = scene.walk(bounds=bounds, rip=leaf + 2, rsp=other, rbp=fp)
    assert [(frame.ip, frame.sp) for frame in walk.frames] == [
        (leaf + 2, other),
        (scene.callee + 9, other + 8),
        (scene.return_address, int(caller_sp)),
    ]
    assert gpr(walk, 2, "rbp") == 0x66
    assert walk.is_complete


def test_a_frame_register_that_leads_off_the_stack_to_no_return_address_ends_the_walk() -> None:
    info = asm.unwind_info([asm.set_fpreg(4), asm.push_nonvol(1, RBP)], 4, frame_register=RBP)
    scene = Scene(bytes.fromhex("55 4889e5") + BODY, info)
    scene.segments[0x30000] = struct.pack("<QQ", 0, BASE + 0x1001)
    walk = scene.walk(rip=scene.callee + 6, rsp=0x13F00, rbp=0x30000)
    assert (walk.end, len(walk.frames)) == (End.STACK_BOUND, 1)


def test_two_functions_that_lead_to_each_other_s_stack_do_not_hold_a_walk() -> None:
    """Each frame register leads to the other stack. The walk is cut off where walks are."""
    info = asm.unwind_info([asm.set_fpreg(4), asm.push_nonvol(1, RBP)], 4, frame_register=RBP)
    scene = Scene(bytes.fromhex("55 4889e5") + b"\xe8\x00\x00\x00\x00" + BODY, info)
    back = scene.callee + 9
    scene.segments[0x30000] = struct.pack("<QQ", 0x13F00, back).ljust(0x1000, b"\0")
    scene.stack.at(0x13F00).d64(0x30000, back)
    walk = scene.unwinder(frame_limit=50).walk(named(rip=scene.callee + 9, rsp=0x13E00, rbp=0x30000), STACK)
    assert (walk.end, len(walk.frames)) == (End.FRAME_LIMIT, 50)
