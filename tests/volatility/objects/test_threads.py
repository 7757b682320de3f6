# SPDX-License-Identifier: Apache-2.0
"""Threads whose state says that they have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.forge.truth import Truth
from tests.support.patched_memory import Patches, opened
from tests.support.volatility_session import Session, open_dump
from throwstack.core.memory import memory_of
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.threads import Thread
from throwstack.volatility.processes import ProcessReader
from throwstack.volatility.survey import Selection, Survey

TERMINATED = b"\x04"
TID = 6108


@pytest.fixture
def session(forged: Callable[..., tuple[Path, Truth]]) -> Iterator[Session]:
    folder, _ = forged("nested")
    with open_dump(folder / "MEMORY.DMP", folder / "isf") as made:
        yield made


def ended(session: Session) -> tuple[Machine, ProcessReader, Thread]:
    """Let the state of the stuck thread be Terminated."""
    patches = Patches(opened(session))
    reader = ProcessReader(patches.machine)
    processes = [process for item in patches.machine.processes() if (process := reader.open(item)) is not None]
    thread = next(thread for process in processes for thread in process.threads if thread.tid == TID)
    patches.write(thread.address + patches.machine.layout.offset("_ETHREAD.Tcb.State"), TERMINATED)
    return patches.apply(), reader, replace(thread, state=TERMINATED[0])


def test_a_thread_whose_teb_is_its_own_has_not_ended(session: Session):
    """One bit of the state is wrong: Waiting, 5, is Terminated, 4."""
    machine, _, _ = ended(session)
    assert [finding.thread.tid for finding in Survey(machine, Selection()).findings()] == [TID]


@pytest.mark.parametrize(("tid", "has_ended"), [(TID, False), (TID + 4, True), (None, True)])
def test_a_thread_whose_teb_is_gone_or_another_threads_has_ended(session: Session, tid: int | None, has_ended: bool):
    machine, reader, thread = ended(session)
    teb = bytearray(0x1000)
    for member, value in (("NtTib.Self", thread.teb), ("ClientId.UniqueThread", tid or 0)):
        at = machine.layout.offset(f"_TEB.{member}")
        teb[at : at + 8] = value.to_bytes(8, "little")
    memory = memory_of({} if tid is None else {thread.teb: bytes(teb)})
    assert reader.threads.with_teb(memory, thread).is_terminated is has_ended
