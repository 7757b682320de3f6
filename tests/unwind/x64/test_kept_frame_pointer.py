# SPDX-License-Identifier: Apache-2.0
"""Code without unwind data below the frame pointer of another function: what is not followed is a guess.

The stacks are laid out by hand, so which frames are on them is known.
"""

from __future__ import annotations

import struct

import pytest

from tests.forge.stacks import Label
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.code_without_data import JIT, Protected, calling
from tests.unwind.x64.scene import BODY, PUSH_RBX_SUB_20, PUSH_RBX_SUB_20_INFO, STACK, Scene, named
from throwstack.core.frames import End, Trust, Walk

# In each: code, the offset of its return address or of where it was interrupted, the words of its frame.
DETOURS = {
    "call ahead": ("53 4883ec20 ffd0 ffd1 4883c420 5b c3", 7, [0] * 4 + [0xB]),
    "jmp [original]": ("4883ec28 ffd0 4883c428 ff2500000000 00000040 00000000", 6, [0] * 5),
    "jmp rax": ("51 52 4883ec28 ffd0 4883c428 5a 59 ffe0", 8, [0] * 5 + [1, 2]),
    "pushfq": ("9c 50 4883ec28 ffd0 4883c428 58 9d e900000002", 8, [0] * 5 + [1, 2]),
}


def walk_from(scene: Scene, *, in_code: int, words: list[int], middle: int, rip: int | None = None) -> Walk:
    """Walk from code without unwind data, whose frame has `words`, called by a function that keeps a frame pointer.

    `in_code` is the address in that code, `middle` the return address of its caller. The frame is the second one, after
    a leaf function, or the first one, if `rip` is given. rbp is the caller's frame pointer all the time.
    """
    sp, fp, caller_sp = Label(), Label(), Label()
    stack = scene.stack.at(0x13D00).mark(sp)
    if rip is None:
        stack.d64(in_code)
    stack.d64(*words, middle).zeros(0x20).mark(fp).d64(0xB9, scene.return_address)
    scene.caller_frame(caller_sp)
    unwinder = scene.unwinder(regions=Protected(x20000000=True))
    return unwinder.walk(named(rip=scene.callee if rip is None else rip, rsp=sp, rbp=fp, rbx=0xB), STACK)


@pytest.mark.parametrize("title", DETOURS)
@pytest.mark.parametrize("where", ["generated", "in an image"])
def test_code_that_calls_again_or_ends_with_a_jump_hides_no_caller(title: str, where: str) -> None:
    code, offset, words = DETOURS[title]
    scene = Scene(BODY)
    data = bytes.fromhex(code).ljust(0x40, b"\xcc")
    if where == "generated":
        begin = JIT
        scene.segments[JIT] = data
    else:
        begin = scene.add("no unwind data", data, None)
    middle = calling(scene, "middle", begin)
    walk = walk_from(scene, in_code=begin + offset, words=words, middle=middle)
    assert [frame.ip for frame in walk.frames] == [scene.callee, begin + offset, middle, scene.return_address]
    assert [frame.trust for frame in walk.frames[2:]] == [Trust.PROLOGUE, Trust.CFI]
    assert walk.is_complete


@pytest.mark.parametrize("offset", [0, 1, 5])
@pytest.mark.parametrize("jump", ["ff25 slot", "e9"])
def test_a_trampoline_goes_on_in_the_function_whose_prologue_it_has_run(offset: int, jump: str) -> None:
    """push rbx; sub rsp,20h; jmp original+5: interrupted before or after a moved instruction."""
    scene = Scene(PUSH_RBX_SUB_20 + BODY + bytes.fromhex("4883c420 5b c3"), PUSH_RBX_SUB_20_INFO)
    near = jump == "e9"
    begin = scene.add("trampoline", bytes(0x20), None) if near else JIT
    original = scene.callee + 5
    code = PUSH_RBX_SUB_20 + (
        b"\xe9" + struct.pack("<i", original - begin - 10)
        if near
        else b"\xff\x25\0\0\0\0" + struct.pack("<Q", original)
    )
    if near:
        scene.code.code[begin - scene.callee : begin - scene.callee + len(code)] = code
    else:
        scene.segments[JIT] = code
    middle = calling(scene, "middle", begin)
    words = {0: [], 1: [0xB], 5: [0] * 4 + [0xB]}[offset]
    walk = walk_from(scene, in_code=0, words=words, middle=middle, rip=begin + offset)
    assert [frame.ip for frame in walk.frames] == [begin + offset, middle, scene.return_address]
    assert walk.frames[1].registers.gpr[3] == 0xB
    assert walk.is_complete


def test_two_frames_of_an_image_are_not_hidden_by_a_detour() -> None:
    scene = Scene(BODY)
    plain = scene.add("plain", bytes.fromhex("4883ec28 ffd0 90 4883c428 c3"), asm.unwind_info([asm.alloc(4, 0x28)], 4))
    middle = calling(scene, "middle", plain)
    scene.segments[JIT] = bytes.fromhex("4883ec28 ffd0 ffd1 4883c428 c3")
    walk = walk_from(scene, in_code=JIT + 6, words=[0] * 5 + [plain + 6] + [0] * 5, middle=middle)
    assert [frame.ip for frame in walk.frames] == [scene.callee, JIT + 6, plain + 6, middle, scene.return_address]
    assert walk.is_complete


NOT_FOLLOWED = {
    "its call is its last instruction": "53 4883ec20 ffd0 cc",
    "rsp from a register": "53 4883ec20 ffd0 488be1 c3",
    "after a function that keeps rbp": "55 4889e5 90 5d c3 53 4883ec20 ffd0 cc",
    "after a function that ends with a jump": "55 4889e5 90 eb05 90 53 4883ec20 ffd0 cc",
    "after a function that ends with a call": "55 4889e5 4883ec20 e800001000 0f1f00 53 4883ec20 ffd0 cc",
    "right after a function that ends with a call": "55 4889e5 4883ec20 909090 e800001000 53 4883ec20 ffd0 cc",
    "that has popped rbp": "55 4889e5 5d 4883ec28 ffd0 cc",
    "that keeps something else in rbp": "55 4889e5 89cd 4883ec20 ffd0 cc",
}


@pytest.mark.parametrize("code", NOT_FOLLOWED.values(), ids=NOT_FOLLOWED)
def test_a_walk_with_a_step_by_an_rbp_that_no_code_is_seen_to_keep_is_not_complete(code: str) -> None:
    """rbp is the caller's frame pointer: the caller itself is left out."""
    scene = Scene(BODY)
    data = bytes.fromhex(code)
    offset = data.index(b"\xff\xd0") + 2
    scene.segments[JIT] = data.ljust(0x40, b"\xcc")
    middle = calling(scene, "middle", JIT)
    walk = walk_from(scene, in_code=JIT + offset, words=[0] * 4 + [0xB], middle=middle)
    assert [frame.ip for frame in walk.frames] == [scene.callee, JIT + offset, scene.return_address]
    assert walk.frames[2].trust is Trust.FRAME_POINTER
    assert walk.end is End.LOST_RETURN_ADDRESS
    assert f"no unwind data covers {JIT + offset:#x}" in walk.detail


# In each: code that ends with a call which never returns, then another function; where the frame is in the first one.
FOLLOWED_BY_ANOTHER = {
    "a leaf function": ("4883ec28 e800001000 b801000000 c3", 9),
    "a function": ("4883ec28 e800001000 53 4883ec20 4883c420 5b c3", 9),
    "a function that ends with a jump": ("4883ec28 e800001000 4883ec28 4883c428 ffe0", 9),
    "before the call": ("4883ec28 90 e800001000 b801000000 c3", 4),
}


@pytest.mark.parametrize("title", FOLLOWED_BY_ANOTHER)
def test_a_call_that_never_returns_leads_to_no_return_of_the_function_after_it(title: str) -> None:
    """The word at rsp, by which that function would return, is a return address of an earlier call."""
    code, offset = FOLLOWED_BY_ANOTHER[title]
    is_first = title == "before the call"
    scene = Scene(BODY)
    scene.segments[JIT] = bytes.fromhex(code).ljust(0x80, b"\xcc")
    earlier, middle = calling(scene, "earlier", JIT), calling(scene, "middle", JIT)
    words = [earlier, 0, 0, 0, 0]
    walk = walk_from(scene, in_code=JIT + offset, words=words, middle=middle, rip=JIT + offset if is_first else None)
    assert (walk.frames[-1].ip, walk.frames[-1].trust) == (scene.return_address, Trust.FRAME_POINTER)
    assert earlier not in [frame.ip for frame in walk.frames]
    assert walk.end is End.LOST_RETURN_ADDRESS


# int 29h (__fastfail), ud0, ud1, retfq, iretq, sysretq, sysexit, enter, a far jump
LAST = ("cd29", "0fffc0", "0fb9c0", "48cb", "48cf", "480f07", "0f35", "c8280000", "48ff28")


@pytest.mark.parametrize("last", LAST)
def test_code_is_not_followed_after_an_instruction_that_goes_on_elsewhere(last: str) -> None:
    """je over the instruction and the `ret` of the next function; add rsp,28h; ret."""
    scene = Scene(BODY)
    skipped = bytes.fromhex(last) + b"\xc3"
    code = bytes.fromhex("4883ec28 74") + bytes([len(skipped)]) + skipped + bytes.fromhex("4883c428 c3")
    scene.segments[JIT] = code.ljust(0x80, b"\xcc")
    earlier, middle = calling(scene, "earlier", JIT), calling(scene, "middle", JIT)
    walk = walk_from(scene, in_code=0, words=[earlier, 0, 0, 0, 0], middle=middle, rip=JIT + 4)
    assert [(frame.ip, frame.trust) for frame in walk.frames[1:]] == [
        (middle, Trust.PROLOGUE),
        (scene.return_address, Trust.CFI),
    ]


KEPT = {
    "prologue": "55 4889e5 4883ec20 ffd0 cc",
    "prologue, other encoding": "55 488bec 4883ec20 ffd0 cc",
    "prologue, far": "55 488bec" + "90" * 300 + "ffd0 cc",
    "prologue, branches and calls": "55 488bec 4883ec20 7403 ffd1 cc ffd0 cc",
    "locals ahead": "ffd0 8945fc 0f0b",  # mov [rbp-4],eax; ud2
    "locals ahead, after a call": "ffd0 ffd1 488b45f8 0f0b",
}


@pytest.mark.parametrize("code", KEPT.values(), ids=KEPT)
def test_a_chain_of_frame_pointers_of_generated_code_that_keeps_them_is_complete(code: str) -> None:
    """Two generated frames, each with a saved rbp; no return is ahead of them."""
    data = (b"\x90" * 8 + bytes.fromhex(code)).ljust(0x200, b"\xcc")
    inside = JIT + data.index(b"\xff\xd0") + 2
    scene = Scene(BODY)
    scene.segments[JIT] = data
    sp, inner, outer, caller_sp = Label(), Label(), Label(), Label()
    scene.stack.at(0x13D00).mark(sp).d64(inside).zeros(0x20).mark(inner).d64(outer, inside)
    scene.stack.zeros(0x20).mark(outer).d64(0xB9, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.unwinder(regions=Protected(x20000000=True)).walk(named(rip=scene.callee, rsp=sp, rbp=inner), STACK)
    assert [(frame.ip, frame.trust) for frame in walk.frames[1:]] == [
        (inside, Trust.CFI),
        (inside, Trust.FRAME_POINTER),
        (scene.return_address, Trust.FRAME_POINTER),
    ]
    assert walk.is_complete


@pytest.mark.parametrize("code", ["ffd0 ffd1 c9 c3", "ffd0 ffd1 4889ec 5d c3", "ffd0 488d65f8 5b 5d c3"])
def test_a_frame_pointer_that_the_code_gives_the_stack_back_by_is_followed_over_calls(code: str) -> None:
    """leave; mov rsp,rbp; lea rsp,[rbp-8]: the stack pointer may be anywhere below."""
    scene = Scene(BODY)
    scene.segments[JIT] = b"\x90" * 8 + bytes.fromhex(code)
    sp, fp, caller_sp = Label(), Label(), Label()
    scene.stack.at(0x13D00).mark(sp).d64(JIT + 10).zeros(0x48).d64(0x5A).mark(fp).d64(0xB9, scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.walk(rip=scene.callee, rsp=sp, rbp=fp)
    assert (walk.frames[2].ip, walk.frames[2].trust) == (scene.return_address, Trust.PROLOGUE)
    assert (walk.frames[2].sp, walk.frames[2].registers.gpr[5]) == (int(caller_sp), 0xB9)
    assert walk.is_complete
