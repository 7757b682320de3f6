# SPDX-License-Identifier: Apache-2.0
"""A box's text is the second argument of the function that shows it."""

from __future__ import annotations

import pytest

from tests.forge.stacks import Label, Stack
from tests.support.targets import make_target
from throwstack.core.frames import End, Frame, Trust, Walk
from throwstack.core.registers import Arch, Registers
from throwstack.images.modules import Module
from throwstack.stuck.error_box import box_text

USER32 = Module("USER32.dll", "", 0x77380000, 0x90000)
LIMIT, BASE = 0x0012E000, 0x00130000
TEXT = 0x00141000


def shown(symbol: str, text: bytes | None, arch: Arch = Arch.X86) -> str:
    """Return the text found on a stack on which `symbol` was called with (0, TEXT, 0, 0)."""
    child_ebp = Label("ChildEBP")
    stack = Stack(LIMIT, BASE).at(0x0012FF00).mark(child_ebp).d32(0x0012FF40, 0x00401234, 0, TEXT, 0, 0)
    names = {"eip": USER32.base + 0x1010, "esp": LIMIT} if arch is Arch.X86 else {"rip": USER32.base, "rsp": LIMIT}
    frame = Frame(Registers.named(arch, names), int(child_ebp), 0x00401234, int(child_ebp) + 4, Trust.PROLOGUE)
    walk = Walk((frame,), End.THREAD_START)
    memory = {LIMIT: stack.data()} | ({} if text is None else {TEXT: text})
    return box_text(make_target(arch, [USER32], memory, {"USER32.dll": {symbol: 0x1000}}, walk), walk)


@pytest.mark.parametrize("symbol", ["MessageBoxW", "MessageBoxExW", "MessageBoxTimeoutW"])
def test_the_text_of_a_wide_message_box_is_its_second_argument(symbol: str):
    assert shown(symbol, "Runtime Error!\n\nProgram: svc".encode("utf-16-le") + b"\0\0") == (
        r"Runtime Error!\n\nProgram: svc"
    )


def test_the_text_of_an_ansi_message_box_is_its_second_argument():
    assert shown("MessageBoxA", b"Assertion failed: p != NULL\0") == "Assertion failed: p != NULL"


def test_there_is_no_text_without_a_message_box_or_where_its_text_is_not_in_memory():
    assert shown("MessageBoxW", None) == ""
    assert shown("DispatchMessageW", b"x\0\0\0") == ""
    assert shown("MessageBoxW", b"x\0\0\0", Arch.X64) == ""
