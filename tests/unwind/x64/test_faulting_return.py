# SPDX-License-Identifier: Apache-2.0
"""A fault of managed code that .NET's runtime turned into a call: the instruction is no return address after a call."""

from __future__ import annotations

import pytest

from tests.forge.stacks import Label
from tests.unwind.x64.scene import PUSH_RBX_SUB_20, PUSH_RBX_SUB_20_INFO, STACK, Scene, named
from throwstack.core.frames import Trust, Walk
from throwstack.images.function_table import RuntimeFunction
from throwstack.unwind.code_outside import OutsideFunction
from throwstack.unwind.x64.faulting_return import NOTE

JIT, INFO = 0x20000000, 0x20000800
FAULT = JIT + 0x15
"""An instruction of a managed method: push rbx; sub rsp,20h; …; mov rax,[rcx+8]. No call is before it."""


class Managed:
    """A source that knows one managed method."""

    def function_at(self, address: int) -> OutsideFunction | None:
        if not JIT <= address < JIT + 0x40:
            return None
        return OutsideFunction("clr", "Shop.Length", JIT, RuntimeFunction(0, 0x40, INFO - JIT))


def walk_from_throw_helper(*, has_data: bool, pushed: int = FAULT) -> Walk:
    """The helper was interrupted in the function that it called; has_data: it has unwind data itself."""
    scene = Scene(PUSH_RBX_SUB_20 + b"\x90" * 8, PUSH_RBX_SUB_20_INFO, name="coreclr.dll")
    helper = (
        scene.add("helper", b"\x48\x83\xec\x28" + b"\xe8\0\0\0\0\xcc\xcc", b"\x01\x04\x01\0\x04\x42\0\0")
        if (has_data)
        else scene.add("helper", b"\xe8\0\0\0\0\xcc\xcc", None)
    )
    in_helper = helper + (9 if has_data else 5)
    stack = scene.stack
    stack.zeros(0x28).d64(in_helper)
    if has_data:
        stack.zeros(0x28)
    stack.d64(pushed)
    stack.mark(Label("method")).zeros(0x28).d64(scene.return_address)
    scene.caller_frame(Label("caller"))
    code = bytearray(b"\x90" * 0x40)
    code[:5] = PUSH_RBX_SUB_20
    scene.segments = {JIT: bytes(code), INFO: PUSH_RBX_SUB_20_INFO}
    unwinder = scene.unwinder(sources=[Managed()])
    return unwinder.walk(named(rip=scene.callee + 8, rsp=STACK.limit), STACK)


@pytest.mark.parametrize("has_data", [True, False], ids=["2.1", "3.1"])
def test_the_instruction_that_faulted_is_an_interrupted_frame(has_data: bool) -> None:
    walk = walk_from_throw_helper(has_data=has_data)
    frame = next(frame for frame in walk.frames if frame.ip == FAULT)
    assert (frame.is_interrupted, frame.trust, frame.note) == (True, Trust.CFI, NOTE)
    assert walk.is_complete


def test_another_address_that_is_after_no_call_is_not_believed() -> None:
    walk = walk_from_throw_helper(has_data=True, pushed=JIT + 0x100)
    assert not walk.is_complete
    assert all(frame.ip != JIT + 0x100 for frame in walk.frames)
