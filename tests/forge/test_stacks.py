# SPDX-License-Identifier: Apache-2.0
"""The stack assembler, and the truth that is written beside a dump."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.forge.stacks import Label, Stack, StackConflict
from tests.forge.truth import Truth, TruthFrame, TruthThread


def test_labels_may_be_used_before_they_are_marked() -> None:
    frame, handler = Label("frame"), Label("handler")
    stack = Stack(0x1000, 0x1020)
    stack.at(0x1004).d32(frame, 7).mark(frame).d32(handler).zeros(4).mark(handler).d64(0x1122334455667788)
    assert int(frame) == 0x100C
    assert stack.word(0x1004) == 0x100C
    assert stack.data(0x1004) == bytes.fromhex(
        "0c100000 07000000 14100000 00000000 8877665544332211 00000000".replace(" ", "")
    )


def test_a_label_that_is_nowhere_is_an_error() -> None:
    stack = Stack(0x1000, 0x1010)
    stack.d32(Label("lost"))
    with pytest.raises(ValueError, match="lost was never marked"):
        stack.data()


def test_the_same_word_twice_is_fine_and_another_is_not() -> None:
    stack = Stack(0x1000, 0x1010)
    stack.at(0x1004).d32(5).at(0x1004).d32(5)
    with pytest.raises(StackConflict, match="0x1004 has 4 bytes 0x5, now 4 bytes 0x6"):
        stack.at(0x1004).d32(6)
    with pytest.raises(StackConflict):
        stack.at(0x1000).d64(0)


@pytest.mark.parametrize("address", [0xFFC, 0x1010, 0x1002])
def test_words_lie_on_the_stack_and_aligned(address: int) -> None:
    with pytest.raises(StackConflict, match="is not on the stack"):
        Stack(0x1000, 0x1010).at(address).d32(1)


def test_truth_reads_back_what_was_written(tmp_path: Path) -> None:
    inner = TruthFrame(0x401000, 0x12FF00, 0x401234, (1, 0xFFFFFFFF, 3), "a!b+0x1", {"ebp": 0x12FF00})
    outer = TruthFrame(0x401234, 0x12FF40, 0, None, "")
    thread = TruthThread(
        pid=4, tid=8, process="a.exe", arch="x86", code=0xC0000005, address=0x401000, record=0x12FD00,
        context=0x12FD80, registers={"eip": 0x401000}, thrown_at="a!b+0x1", frames=(inner, outer),
        thread_stack=(inner, outer), blockers=("k!f",), exception_type=None, message="text", wait_ticks=3,
    )  # fmt: skip
    truth = Truth("sample", "x86", (thread,), ((4, 12),), {"4:12": (outer,)})
    truth.save(tmp_path / "truth.json")
    assert Truth.load(tmp_path / "truth.json") == truth
