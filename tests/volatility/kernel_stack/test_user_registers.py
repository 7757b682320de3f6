# SPDX-License-Identifier: Apache-2.0
"""Registers that a system call leaves only on the kernel stack, found there; the truth is what the case put there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Forge
from tests.forge.__main__ import forge
from tests.forge.cases.machine_x64 import Site
from tests.support.patched_memory import opened
from tests.support.volatility_session import open_dump
from throwstack.core.registers import X64
from throwstack.core.sides import Side
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.opening.sources import Sources
from throwstack.volatility.processes import ProcessReader

FROM_KERNEL_STACK = ("r12", "r13", "r14", "r15")
FROM_TRAP_FRAME = ("rbx", "rbp", "rsi", "rdi")


def test_nonvolatile_registers_of_a_blocked_thread_are_exact(forged: Forge):
    out, truth = forged("service-x64")
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        reader = ProcessReader(Machine(session.context, session.kernel_name, "test", Sources("", "")))
        process = reader.open(session.processes()[truth.stuck[0].pid])
        assert process is not None
        threads = {thread.tid: thread for thread in process.threads}
        for stuck in truth.stuck:
            expected = next(frame for frame in stuck.thread_stack if frame.symbol.startswith("ntdll!"))
            thread = threads[stuck.tid]
            stack = reader.completed(thread, reader.stack(process, thread, Side.NATIVE))
            assert stack.registers is not None
            found = dict(zip(X64.register_names, stack.registers.gpr, strict=True))
            for name in (*FROM_TRAP_FRAME, *FROM_KERNEL_STACK):
                assert found[name] == expected.registers[name], name
            assert (stack.registers.ip, stack.registers.sp) == (expected.ip, expected.child_sp)


@pytest.mark.parametrize("pointer", [0, 1, 0xFFFF800000000000, 0xFFFFFFFFFFFFFFFF])
def test_nonvolatile_registers_stay_unknown_without_a_kernel_stack(forged: Forge, pointer: int):
    out, truth = forged("service-x64")
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        reader = ProcessReader(Machine(session.context, session.kernel_name, "test", Sources("", "")))
        process = reader.open(session.processes()[truth.stuck[0].pid])
        assert process is not None
        thread = replace(process.threads[0], kernel_stack=pointer)
        registers = reader.completed(thread, reader.stack(process, thread, Side.NATIVE)).registers
        assert registers is not None
        assert registers.gpr[12:] == (None, None, None, None)


def test_registers_of_a_thread_interrupted_by_a_fault_are_exact(tmp_path: Path):
    """KiPageFault saves what a C function may change; in the trap frame rbx, rsi and rdi are an earlier call's."""
    site = Site("paging")
    process, threads = site.service(0x14B8)
    waiting = threads.paging_in(0x14BC, 7000)
    site.add(process, waiting)
    forge(site.case(), tmp_path)
    expected = next(frame for frame in waiting.frames if not frame.symbol.startswith("nt!"))
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session:
        reader = ProcessReader(opened(session))
        opened_process = reader.open(session.processes()[0x14B8])
        assert opened_process is not None
        (thread,) = opened_process.threads
        stack = reader.stack(opened_process, thread, Side.NATIVE)
        assert stack.registers is not None
        assert [stack.registers.gpr[X64.register_names.index(name)] for name in ("rbx", "rsi", "rdi")] == [None] * 3
        registers = reader.completed(thread, stack).registers
        assert registers is not None
        found = dict(zip(X64.register_names, registers.gpr, strict=True))
        for name in (*FROM_TRAP_FRAME, *FROM_KERNEL_STACK):
            assert found[name] == expected.registers[name], name
        walk = opened_process.program.unwinder.walk(registers, stack.bounds)
        user = [(frame.ip, frame.child_sp) for frame in waiting.frames if not frame.symbol.startswith("nt!")]
        assert [(frame.ip, frame.child_sp) for frame in walk.frames] == user
