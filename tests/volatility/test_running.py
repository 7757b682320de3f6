# SPDX-License-Identifier: Apache-2.0
"""Threads that were running: their trap frame is of some time before, their processor's CONTEXT of now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forge.__main__ import forge
from tests.forge.cases.machine_x64 import HEAP, Site
from tests.forge.cases.threads_x64 import Crash
from tests.forge.describe import ThreadState
from tests.forge.records import context_x64
from tests.forge.truth import TruthFrame
from tests.support.patched_memory import Patches, opened
from tests.support.volatility_session import Session, open_dump
from throwstack.core.frames import Trust
from throwstack.volatility.processes import ProcessReader
from throwstack.volatility.survey import Finding, Selection, Survey

PID, TID = 0x14B8, 0x14C8


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Session, Crash]]:
    """A thread that was stuck on an exception when it last left user mode, and has run since."""
    site = Site("running")
    process, threads = site.service(PID)
    crash = threads.throw(TID, HEAP, 6400)
    crash.thread.state = ThreadState.RUNNING
    site.add(process, crash)
    out = tmp_path_factory.mktemp("running")
    forge(site.case(), out)
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        yield session, crash


def findings(session: Session, frame: TruthFrame | None, **changes: int) -> list[Finding]:
    """Return what is found where the processor stands at `frame`, or where nothing is known of it."""
    patches = Patches(opened(session))
    machine = patches.machine
    if frame is not None:
        table = machine.symbol("KiProcessorBlock")
        assert table is not None
        block = machine.pointer(machine.memory, table)
        registers = {**dict.fromkeys(("rax", "rcx", "rdx", "r8", "r9", "r10", "r11"), 0), **frame.registers, **changes}
        context = context_x64({**registers, "eflags": 0x246, "cs": 0x33, "ss": 0x2B}, 0x10000F)
        patches.write(block + machine.layout.offset("_KPRCB.ProcessorState.ContextFrame"), context)
    return list(Survey(patches.apply(), Selection()).findings())


def named(crash: Crash, name: str) -> TruthFrame:
    return next(frame for frame in crash.frames if f"!{name}" in frame.symbol)


def test_a_running_thread_that_has_left_the_filter_is_not_stuck(dump: tuple[Session, Crash]):
    session, crash = dump
    assert findings(session, named(crash, "ledger::Importer::ImportFile")) == []


def test_a_thread_that_runs_in_the_filter_is_walked_from_its_processors_registers(dump: tuple[Session, Crash]):
    session, crash = dump
    frame = named(crash, "UnhandledExceptionFilter")
    (found,) = findings(session, frame)
    assert found.stuck.blocked_walk is not None
    outer = crash.frames[crash.frames.index(frame) :]
    assert [(item.ip, item.sp) for item in found.stuck.blocked_walk.frames] == [
        (item.ip, item.child_sp) for item in outer
    ]
    (exception,) = found.stuck.exceptions
    assert (exception.record.location, exception.context.address) == (crash.record, crash.context)


@pytest.mark.parametrize("is_known", [True, False], ids=["of another stack", "none"])
def test_without_registers_of_its_own_the_row_says_that_it_rests_on_a_word(dump: tuple[Session, Crash], is_known: bool):
    session, crash = dump
    (found,) = findings(
        session, named(crash, "ledger::Importer") if is_known else None, rsp=crash.thread.stack_limit - 8
    )
    expected = (
        "the registers of its processor are not those of this thread"
        if is_known
        else "the thread was running: its registers are not in the dump"
    )
    assert found.stuck.notes[0] == expected
    assert "which may be of an earlier time" in found.stuck.notes[-1]
    assert found.stuck.blocked_walk is None
    assert found.stuck.throwing_walks[0].frames[0].trust is Trust.CONTEXT


def test_a_trap_frame_with_a_stack_pointer_beyond_the_stack_does_not_hide_the_thread(tmp_path: Path):
    """Nothing of the stack would be looked at from there on; so all of it is, as where no registers are known."""
    site = Site("beyond")
    process, threads = site.service(PID)
    crash = threads.throw(TID, HEAP, 6400)
    site.add(process, crash)
    forge(site.case(), tmp_path)
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session:
        patches = Patches(opened(session))
        reader = ProcessReader(patches.machine)
        opened_process = reader.open(session.processes()[PID])
        assert opened_process is not None
        frame = reader.threads.trap_frame(opened_process.threads[0])
        assert frame is not None
        patches.put(frame.address, "_KTRAP_FRAME.Rsp", 0xFFFFFFFFFFFFFFF8)
        (found,) = Survey(patches.apply(), Selection()).findings()
    assert found.stuck.notes[0] == "the trap frame's registers are not this thread's: stack pointer 0xfffffffffffffff8"
    assert found.stuck.exceptions[0].context.address == crash.context
