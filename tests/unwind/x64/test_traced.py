# SPDX-License-Identifier: Apache-2.0
"""The trace of an x64 walk: a line for each step, with the rule and what came of it."""

from __future__ import annotations

import logging

import pytest

from tests.forge.stacks import Label
from tests.unwind.x64.scene import BODY, PUSH_RBX_SUB_20, PUSH_RBX_SUB_20_INFO, Scene
from throwstack.unwind import trace


def test_each_step_says_its_rule_and_its_outcome(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(PUSH_RBX_SUB_20 + BODY, PUSH_RBX_SUB_20_INFO)
    leaf = scene.add("leaf", BODY + b"\xc3", None)
    sp, slot, top, end = Label(), Label(), Label(), Label()
    scene.stack.at(0x13E00).mark(sp).d64(scene.return_address).zeros(0x28).mark(slot).d64(0x4141)
    scene.stack.zeros(0x10).mark(top).d64(scene.return_address).zeros(0x28).mark(end).d64(0)
    with caplog.at_level(trace.LEVEL, "throwstack.trace"):
        scene.walk(rip=leaf + 1, rsp=sp)
    back = scene.return_address
    lost = f"the return address at {int(slot):#x} was overwritten: it is 0x4141"
    assert [record.getMessage() for record in caplog.records] == [
        f"{leaf + 1:#x}: leaf function: returns to {back:#x} by the word at {int(sp):#x}, cfi",
        f"{back:#x}: unwind codes: returns to {back:#x} by the word at {int(top):#x}, scan; {lost}",
        f"{back:#x}: unwind codes: the walk ends: start of the thread: return address 0",
    ]


def test_code_without_unwind_data_and_epilogues_are_named(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(PUSH_RBX_SUB_20 + b"\x5b\xc3", PUSH_RBX_SUB_20_INFO)
    scene.stack.at(0x13F00).d64(7, scene.return_address)
    with caplog.at_level(trace.LEVEL, "throwstack.trace"):
        scene.walk(rip=scene.callee + 5, rsp=0x13F00)
        scene.walk(rip=0x7FFA00001234, rsp=0x13F08)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith(f"{scene.callee + 5:#x}: instructions of the epilogue: returns to")
    assert any(line.startswith("0x7ffa00001234: no unwind data: returns to") for line in lines)


def test_a_walk_that_nobody_traces_writes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Scene(BODY).walk(rip=0, rsp=0x13F00)
    assert not caplog.records
