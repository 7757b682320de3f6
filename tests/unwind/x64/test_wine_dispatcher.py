# SPDX-License-Identifier: Apache-2.0
"""Wine's KiUserExceptionDispatcher: its unwind data describe a called function, the CONTEXT it was given does not."""

from __future__ import annotations

import struct

import pytest

from tests.forge.stacks import Label
from tests.support.context_records import x64_context
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.scene import BASE, BODY, Scene, gpr


def wine_dispatcher(saved: bytes) -> tuple[Scene, Label, Label]:
    """Wine's KiUserExceptionDispatcher: a CONTEXT at rsp, and unwind data that lead to the interrupted rip."""
    scene = Scene(BODY, name="ntdll.dll")
    dispatcher = scene.add("dispatcher", b"\xe8\0\0\0\0" + BODY, asm.unwind_info([asm.alloc(0, 0x600)]))
    scene.exports["KiUserExceptionDispatcher"] = dispatcher - BASE
    sp, caller_sp = Label(), Label()
    scene.stack.at(0x11000).mark(sp).d64(dispatcher + 5).raw(saved).zeros(0x600 - len(saved)).d64(scene.callee + 3)
    assert scene.stack.here == INTERRUPTED_SP
    scene.stack.d64(scene.return_address)
    scene.caller_frame(caller_sp)
    return scene, sp, caller_sp


INTERRUPTED_SP = 0x11000 + 8 + 0x600 + 8


def saved_context(rip: int, *, rsp: int = INTERRUPTED_SP, **options: int) -> bytes:
    data = bytearray(x64_context(**options))
    struct.pack_into("<Q", data, 0x98, rsp)
    struct.pack_into("<Q", data, 0xF8, rip)
    return bytes(data)


def test_dispatcher_that_is_described_as_a_called_function() -> None:
    callee = Scene(BODY).callee
    scene, sp, caller_sp = wine_dispatcher(saved_context(callee + 3))
    walk = scene.walk(rip=scene.callee, rsp=sp, rbp=0xBAD)
    assert [frame.is_interrupted for frame in walk.frames] == [True, False, True, False]
    # All registers of the interrupted code, whose leaf function returns by the word on top of the stack.
    assert (gpr(walk, 2, "rax"), gpr(walk, 2, "rbp"), gpr(walk, 3, "rbp")) == (0xA, 0xBB, 0xBB)
    assert (walk.frames[2].ip, walk.frames[2].sp) == (scene.callee + 3, INTERRUPTED_SP)
    assert walk.frames[3].sp == int(caller_sp)
    assert walk.is_complete


@pytest.mark.parametrize("options", [{"rsp": INTERRUPTED_SP + 8}, {"rip": 0x1234}, {"flags": 0x10007}, {"cs": 0x23}])
def test_dispatcher_whose_context_tells_something_else(options: dict[str, int]) -> None:
    callee = Scene(BODY).callee
    scene, sp, _ = wine_dispatcher(saved_context(**{"rip": callee + 3, **options}))
    walk = scene.walk(rip=scene.callee, rsp=sp, rbp=0xBAD)
    assert not any(frame.is_interrupted for frame in walk.frames[1:])
    assert gpr(walk, 2, "rax") is None
