# SPDX-License-Identifier: Apache-2.0
"""Recorded stacks in the lines that the runtime prints."""

from __future__ import annotations

from throwstack.managed.managed_exception import ManagedFrame, ManagedMethod
from throwstack.managed.stack_text import END_OF_EARLIER_STACK, stack_lines

MAIN = ManagedMethod("Shop.Program.Main", "(String[] arguments)")
THROW = ManagedMethod("System.ThrowHelper.Throw", "()", is_hidden=True)
LOAD = ManagedMethod("Shop.Program.<Load>d__1.MoveNext", "()", original="Shop.Program.Load(String name)")


def frame(method: ManagedMethod, *, is_end: bool = False) -> ManagedFrame:
    return ManagedFrame(0x1000, 0x2000, 0x3000, method, is_end)


def test_hidden_frames_are_left_out_but_never_the_outermost_one() -> None:
    assert stack_lines([frame(THROW), frame(MAIN)]) == ["Shop.Program.Main(String[] arguments)"]
    assert stack_lines([frame(MAIN), frame(THROW)])[-1] == "System.ThrowHelper.Throw()"


def test_an_earlier_stack_ends_with_a_line_unless_an_async_method_ends_it() -> None:
    assert stack_lines([frame(MAIN, is_end=True), frame(MAIN)])[1] == END_OF_EARLIER_STACK
    assert stack_lines([frame(LOAD, is_end=True), frame(MAIN)]) == [
        "Shop.Program.Load(String name)",
        "Shop.Program.Main(String[] arguments)",
    ]


def test_a_frame_without_a_name_is_its_address_and_the_reason() -> None:
    assert stack_lines([frame(ManagedMethod("", reason="no metadata"))]) == ["0x1000 (no metadata)"]
