# SPDX-License-Identifier: Apache-2.0
"""Threads and processes of forged dumps: the fields that a stack walk starts from, at the addresses a case gives."""

from __future__ import annotations

import pytest
from volatility3.plugins.windows import pslist

from tests.forge.build import DumpKind, build
from tests.forge.describe import LoadedModule, Machine, Paging, Process, Region, Thread, ThreadState
from tests.support.forge_machines import PAGE, VERSIONS, base_of_ntdll, image, machine, process, registers, thread
from tests.support.volatility_session import Session, open_dump


def threads_of(session: Session, pid: int):
    head = session.processes()[pid].ThreadListHead
    return list(head.to_list(f"{session.kernel.symbol_table_name}!_ETHREAD", "ThreadListEntry"))


def transcript() -> Machine:
    """Return the system of the reference transcript, with the addresses that it shows."""
    stuck = Thread(
        0xAE8,
        0x7FFAD000,
        0x45C0000,
        0x45B9000,
        registers(Paging.PAE, 0x7C8285EC, 0x45B9F6C),
        state=ThreadState.WAITING,
        wait_reason=13,
        alertable=True,
        wait_ticks=7198,
        priority=10,
        address=0x89E3D418,
        kernel_stack_base=0xB8FDF000,
        kernel_stack_limit=0xB8FDB000,
        kernel_stack_pointer=0xB8FDE900,
        kernel_stack={0xB8FDE900: b"\x01\x02\x03\x04", 0xB8FDEFFC: b"\xaa\xbb\xcc\xdd"},
        win32_thread=0xE26A6508,
    )
    processes = [
        Process(0x79C, "intfysvc.exe", 0x1BC, 0x7FFDD000, address=0x89EEE6F8, directory_base=0x7F404380),
        Process(0x7F0, "SSHServer.exe", 0x1BC, 0x7FFD8000, address=0x899F2BC8, directory_base=0x7F4043A0),
        Process(0xA04, "iftpsvc.exe", 0x1BC, 0x7FFDE000, address=0x8948FA08, directory_base=0x7F404520),
    ]
    processes[2].threads.append(stuck)
    processes[2].regions.append(Region(0x45B9000, bytes(7 * PAGE)))
    for number, each in enumerate(processes):
        each.regions.append(Region(0x10000, bytes([number]) * PAGE))
    return Machine(Paging.PAE, (5, 2, 3790), processes, processors=2)


@pytest.fixture(scope="module", params=[DumpKind.FULL, DumpKind.RAW], ids=lambda kind: kind.name)
def reference(request, tmp_path_factory):
    built = build(transcript(), tmp_path_factory.mktemp("forge"), dump=request.param)
    with open_dump(built.dump, built.isf_dir) as session:
        yield session


def test_process_and_thread_structures_are_at_the_addresses_of_the_transcript(reference):
    rows = {row["PID"]: row["Offset(V)"] for row in reference.rows(pslist)}
    assert (rows[0x79C], rows[0x7F0], rows[0xA04]) == (0x89EEE6F8, 0x899F2BC8, 0x8948FA08)
    assert [hex(t.vol.offset) for t in threads_of(reference, 0xA04)] == ["0x89e3d418"]
    # three pointer tables of 32 bytes on one page
    for number, (pid, base) in enumerate(((0x79C, 0x7F404380), (0x7F0, 0x7F4043A0), (0xA04, 0x7F404520))):
        assert reference.processes()[pid].Pcb.DirectoryTableBase[0] == base
        assert reference.process_layer(pid).read(0x10000, 2) == bytes([number]) * 2


def test_the_forged_thread_has_the_members_of_the_transcript(reference):
    (stuck,) = threads_of(reference, 0xA04)
    tcb = stuck.Tcb
    assert (stuck.Cid.UniqueProcess, stuck.Cid.UniqueThread) == (0xA04, 0xAE8)
    assert (tcb.InitialStack, tcb.StackBase, tcb.StackLimit) == (0xB8FDF000, 0xB8FDF000, 0xB8FDB000)
    assert (tcb.KernelStack, tcb.TrapFrame, tcb.Teb) == (0xB8FDE900, 0xB8FDED64, 0x7FFAD000)
    assert (tcb.get_state(), tcb.get_wait_reason(), tcb.WaitMode, tcb.Alertable) == ("Waiting", "WrUserRequest", 1, 1)
    assert (tcb.WaitTime, tcb.Priority, tcb.BasePriority, tcb.Win32Thread) == (7198, 10, 8, 0xE26A6508)
    assert stuck.owning_process().vol.offset == 0x8948FA08
    assert reference.kernel_layer.read(0xB8FDE900, 4) == b"\x01\x02\x03\x04"
    assert reference.kernel_layer.read(0xB8FDEFFC, 4) == b"\xaa\xbb\xcc\xdd"


def test_pointer_tables_without_the_next_page(tmp_path):
    """Volatility reads a page's worth from a pointer table of 32 bytes: without the next page it sees nothing."""
    described = transcript()
    described.pads_pointer_tables = False
    built = build(described, tmp_path)
    with open_dump(built.dump, built.isf_dir) as session:
        assert not session.process_layer(0xA04).is_valid(0x10000)
        physical = session.context.layers[session.kernel_layer.dependencies[0]]
        assert physical.is_valid(0x7F404520, 32)
        assert not physical.is_valid(0x7F405000)


@pytest.mark.parametrize("paging", Paging, ids=lambda paging: paging.value)
def test_a_waiting_thread_has_a_trap_frame_and_a_teb(paging, tmp_path):
    built = build(machine(paging), tmp_path)
    with open_dump(built.dump, built.isf_dir) as session:
        first, second = threads_of(session, 0x300)
        frame = first.Tcb.TrapFrame.dereference()
        expected = registers(paging, base_of_ntdll(paging) + 0x1010, 0x40000 - 0x100)
        names = {"esp": "HardwareEsp"}
        for name, value in expected.items():
            assert frame.member(names.get(name, name.capitalize())) == value, name
        assert frame.SegCs == (0x33 if paging.is_64bit else 0x1B)
        below = 0x190 if paging.is_64bit else 0x210 + 0x8C
        assert first.Tcb.InitialStack - first.Tcb.TrapFrame == below
        assert first.Tcb.StackLimit < first.Tcb.KernelStack < first.Tcb.TrapFrame
        assert second.Tcb.InitialStack != first.Tcb.InitialStack
        layer = session.process_layer(0x300)
        name = f"{session.kernel.symbol_table_name}!_TEB"
        teb = session.context.object(name, layer.name, second.Tcb.Teb)
        assert (teb.NtTib.StackBase, teb.NtTib.StackLimit, teb.NtTib.Self) == (0x140000, 0x13C000, 0x7FFCC000)
        assert (teb.ClientId.UniqueThread, teb.ProcessEnvironmentBlock) == (0x308, 0x7FFDF000)
        peb = session.processes()[0x300].get_peb()
        assert peb.ImageBaseAddress == base_of_ntdll(paging)
        assert peb.ProcessParameters.ImagePathName.get_string() == "C:\\second.exe"


def test_running_thread_is_its_processors(tmp_path):
    described = machine(Paging.X64)
    described.processors = 2
    described.processes[1].threads[1].state = ThreadState.RUNNING
    built = build(described, tmp_path)
    with open_dump(built.dump, built.isf_dir) as session:
        running = threads_of(session, 0x300)[1]
        block = session.pointer("KiProcessorBlock")
        prcb = session.kernel.object("_KPRCB", block, absolute=True)
        assert running.Tcb.get_state() == "Running"
        assert prcb.CurrentThread == running.vol.offset


def test_a_wow64_process_has_a_32_bit_peb_and_tebs(tmp_path):
    """Both loader lists; the 64-bit TEB leads to the 32-bit one, which the case may have in a region of its own."""
    described = process(Paging.X64, 0x200, "first.exe", image(), threads=1)
    described.threads.append(thread(Paging.X64, 0x208, 0x7FFC0000, 0x240000))
    described.threads[0].stack32_base, described.threads[0].stack32_limit = 0x640000, 0x63C000
    described.threads[1].teb32 = 0x7FFB0000
    described.regions.append(Region(0x7FFB0000, b"TEB32 of the case".ljust(PAGE, b"\0")))
    described.modules32 = [
        LoadedModule("first.exe", "C:\\first.exe", 0x400000, 0x6000),
        LoadedModule("ntdll.dll", "C:\\WINDOWS\\SysWOW64\\ntdll.dll", 0x77000000, 0xC000),
    ]
    built = build(Machine(Paging.X64, VERSIONS[Paging.X64], [described]), tmp_path)
    with open_dump(built.dump, built.isf_dir) as session:
        found = session.processes()[0x200]
        assert found.get_is_wow64()
        names = [(int(m.DllBase), m.FullDllName.get_string()) for m in found.load_order_modules()]
        assert names == [
            (base_of_ntdll(Paging.X64), "C:\\WINDOWS\\system32\\ntdll.dll"),
            (0x400000, "C:\\first.exe"),
            (0x77000000, "C:\\WINDOWS\\SysWOW64\\ntdll.dll"),
        ]
        assert found.get_peb32().ImageBaseAddress == 0x400000
        layer = session.process_layer(0x200)
        first, second = (int.from_bytes(layer.read(t.Tcb.Teb, 8), "little") for t in threads_of(session, 0x200))
        assert (first, second) == (0x7FFD2000, 0x7FFB0000)
        assert layer.read(second, 17) == b"TEB32 of the case"
        words = [int.from_bytes(layer.read(first + at, 4), "little") for at in (4, 8, 0x18, 0x24, 0x30)]
        assert words == [0x640000, 0x63C000, first, 0x204, 0x7FFDE000]
