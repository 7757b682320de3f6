# SPDX-License-Identifier: Apache-2.0
"""What threads wait for, in four Windows versions, and in structures with wrong counts and pointers."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from volatility3.plugins.windows import pslist

from tests.forge.build import build
from tests.forge.describe import Machine, Paging, Thread, WaitObject
from tests.support.forge_machines import machine
from tests.support.patched_memory import Patches, opened
from tests.support.volatility_session import Session, open_dump
from throwstack.volatility.memory.machine import Machine as Opened
from throwstack.volatility.objects.threads import ThreadReader
from throwstack.volatility.objects.wait_objects import Wait, WaitReader

SYSTEMS = {
    "2003 x86": (Paging.PAE, (5, 2, 3790)),
    "7 x86": (Paging.PAE, (6, 1, 7601)),
    "10 x86": (Paging.PAE, (10, 0, 19041)),
    "10 x64": (Paging.X64, (10, 0, 19041)),
}
SECOND = 10_000_000


def waits_of(machine: Opened, session: Session) -> dict[int, Wait]:
    """What each waiting thread of the machine waits for, by thread id."""
    threads = [
        thread
        for process in pslist.PsList.list_processes(session.context, session.kernel_name)
        for thread in ThreadReader(machine).threads(machine.canonical(process.vol.offset))
    ]
    reader = WaitReader(machine)
    return {thread.tid: reader.read(thread.address) for thread in threads}


def without_address(wait: Wait) -> list[str]:
    return [str(item).split(" ", 1)[1] for item in wait.objects]


def described(paging: Paging, version: tuple[int, int, int]) -> tuple[Machine, list[Thread]]:
    """A machine whose four threads wait for objects of every kind."""
    system = machine(paging, version)
    threads = [thread for process in system.processes for thread in process.threads]
    first, second, third, fourth = threads
    now = system.tick_count * 156_250
    first.wait_objects = [WaitObject(2, name="Ledger", owner=second.tid)]
    second.wait_objects = [
        WaitObject(0, name="Stop\x1b[2J\u202e"),
        WaitObject(5, signal=0, limit=4),
        WaitObject(9, due=now + 90 * SECOND),
    ]
    third.wait_objects = [
        WaitObject(3, waited_for=system.processes[0].pid),
        WaitObject(6, waited_for=first.tid),
        WaitObject(2, signal=1),
        WaitObject(8, due=now - 2 * SECOND, is_timeout=True),
    ]
    third.waits_for_all = True
    shared = WaitObject(1)
    fourth.wait_objects = [shared, *(WaitObject(1) for _ in range(9))]
    return system, threads


@pytest.fixture(scope="module", params=SYSTEMS.values(), ids=SYSTEMS.keys())
def dump(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    system, threads = described(*request.param)
    built = build(system, tmp_path_factory.mktemp("waits"))
    with open_dump(built.dump, built.isf_dir) as session:
        yield session, threads


def test_wait_objects_are_described_by_kind_name_and_detail(dump: tuple[Session, list[Thread]]):
    session, threads = dump
    waits = waits_of(opened(session), session)
    first, second, third, fourth = (waits[thread.tid] for thread in threads)
    pid, tids = 0x200, [thread.tid for thread in threads]
    assert without_address(first) == [f'Mutant "Ledger" owned by {pid}:{tids[1]}']
    assert without_address(second) == [
        r'NotificationEvent "Stop\x1b[2J\u202e"',
        "Semaphore count 0 of 4",
        "SynchronizationTimer due in 0:01:30.000",
    ]
    assert without_address(third) == [
        f"Process {pid} first.exe",
        f"Thread {pid}:{tids[0]}",
        "Mutant not owned",
        "NotificationTimer was due 0:00:02.000 ago",
    ]
    assert without_address(fourth) == ["SynchronizationEvent"] * 10
    assert not any(wait.problem for wait in waits.values())


def test_holders_are_only_threads_without_which_the_wait_cannot_end(dump: tuple[Session, list[Thread]]):
    session, threads = dump
    waits = waits_of(opened(session), session)
    assert [holder.tid for holder in waits[threads[0].tid].holders] == [threads[1].tid]
    # A timeout ends the third one's.
    assert waits[threads[2].tid].is_for_all
    assert waits[threads[2].tid].holders == ()


def broken(session: Session, thread: Thread, poke: Callable[[Patches, int, Opened], None]) -> Wait:
    """What a thread waits for once `poke` has changed the kernel's memory; it gets the ETHREAD's address."""
    machine = opened(session)
    threads = {
        found.tid: found.address
        for process in pslist.PsList.list_processes(session.context, session.kernel_name)
        for found in ThreadReader(machine).threads(machine.canonical(process.vol.offset))
    }
    address, patches = threads[thread.tid], Patches(machine)
    poke(patches, address, machine)
    return WaitReader(patches.apply()).read(address)


def first_block(machine: Opened, thread: int) -> int:
    return machine.pointer(machine.memory, thread + machine.layout.offset("_ETHREAD.Tcb.WaitBlockList"))


def test_wait_blocks_in_a_loop_are_read_once_and_reported(dump: tuple[Session, list[Thread]]):
    session, threads = dump

    def loop(patches: Patches, thread: int, machine: Opened) -> None:
        """The second block leads to itself: the ring never comes back to the first."""
        following = machine.layout.find("_KWAIT_BLOCK.NextWaitBlock")
        if following is None:  # an array: its count is wrong
            patches.write(thread + machine.layout.offset("_ETHREAD.Tcb.WaitBlockCount"), b"\xff")
            return
        second = machine.pointer(machine.memory, first_block(machine, thread) + following)
        patches.pointer(second + following, second)

    wait = broken(session, threads[1], loop)
    assert len(wait.objects) <= 2
    assert wait.problem.startswith("wait blocks break off: ")


def test_wait_blocks_on_absent_memory_are_reported(dump: tuple[Session, list[Thread]]):
    session, threads = dump

    def nowhere(patches: Patches, thread: int, machine: Opened) -> None:
        patches.pointer(thread + machine.layout.offset("_ETHREAD.Tcb.WaitBlockList"), 0x10)

    wait = broken(session, threads[1], nowhere)
    assert wait.objects == ()
    assert wait.problem.startswith("wait blocks break off: memory at 0x")


def test_an_unreadable_wait_object_is_reported(dump: tuple[Session, list[Thread]]):
    session, threads = dump

    def missing(patches: Patches, thread: int, machine: Opened) -> None:
        block = first_block(machine, thread)
        patches.pointer(block + machine.layout.offset("_KWAIT_BLOCK.Object"), 0x10)

    assert [str(item) for item in broken(session, threads[0], missing).objects] == ["00000010 unreadable object"]


def test_long_names_are_cut_and_wild_owners_named_by_address(dump: tuple[Session, list[Thread]]):
    session, threads = dump

    def hostile(patches: Patches, thread: int, machine: Opened) -> None:
        memory, layout = machine.memory, machine.layout
        mutant = machine.pointer(memory, first_block(machine, thread) + layout.offset("_KWAIT_BLOCK.Object"))
        patches.pointer(mutant + layout.offset("_KMUTANT.OwnerThread"), mutant)
        header = mutant - layout.offset("_OBJECT_HEADER.Body")
        name = header - layout.size("_OBJECT_HEADER_NAME_INFO") + layout.offset("_OBJECT_HEADER_NAME_INFO.Name")
        patches.write(name + layout.offset("_UNICODE_STRING.Length"), struct.pack("<H", 0xFFFE))
        patches.pointer(name + layout.offset("_UNICODE_STRING.Buffer"), thread & -0x1000)

    (item,) = broken(session, threads[0], hostile).objects
    assert len(item.name) <= 257
    assert item.name.isprintable()
    assert item.holder is None
    assert item.detail == f"owned by thread at {item.address:#x}"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (24, "Timer2NotificationObject"),
        (0x80 | 25, "Timer2SynchronizationObject"),  # locked by a processor
        (7, "Gate"),
        (30, "object of type 30"),
    ],
)
def test_objects_without_a_header_of_the_object_manager_are_named_by_their_type(
    dump: tuple[Session, list[Thread]], kind: int, text: str
):
    session, threads = dump

    def turn_into(patches: Patches, thread: int, machine: Opened) -> None:
        waited = machine.pointer(
            machine.memory, first_block(machine, thread) + machine.layout.offset("_KWAIT_BLOCK.Object")
        )
        patches.write(waited, bytes([kind]))

    (item,) = broken(session, threads[0], turn_into).objects
    assert item.type_name == text
    assert item.name == ""
