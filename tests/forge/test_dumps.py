# SPDX-License-Identifier: Apache-2.0
"""The cases as Volatility sees them: their threads, and the words of their stacks in the address spaces of the dump."""

from __future__ import annotations

from pathlib import Path

import pytest
from volatility3.plugins.windows import dlllist, threads

from tests.forge.__main__ import main
from tests.forge.cases import Case, builders
from tests.forge.describe import Residency
from tests.forge.layouts import load
from tests.forge.truth import Truth
from tests.support.shared import SHARED, isf_files
from tests.support.volatility_session import Session, open_dump

SMALL = [name for name in builders() if name != "fleet"]


def forged(case: str, out: Path, *options: str) -> tuple[Case, Truth]:
    """Forge a case by the command; return its description and the truth as written."""
    assert main([case, str(out), *options]) == 0
    return builders()[case][0](), Truth.load(out / "truth.json")


def check(session: Session, case: Case, truth: Truth) -> None:
    """Compare threads, memory of the processes and kernel stacks with the description."""
    listed = {(row["PID"], row["TID"]) for row in session.rows(threads)}
    assert listed == {(thread.pid, thread.tid) for thread in truth.stuck} | {*truth.quiet, *truth.hanging}
    for process in case.machine.processes:
        if not process.regions:
            continue
        layer = session.process_layer(process.pid)
        written = {thread.teb for thread in process.threads}
        for region in process.regions:
            if region.base in written:
                continue
            assert layer.read(region.base, len(region.data)) == region.data
        for thread in process.threads:
            for at, data in thread.kernel_stack.items():
                assert session.kernel_layer.read(at & session.kernel_layer.address_mask, len(data)) == data
    for thread in truth.stuck:
        layer = session.process_layer(thread.pid)
        # CONTEXT.ContextFlags: CONTEXT_i386 or CONTEXT_AMD64, and what else there is
        is_32bit = thread.arch in {"x86", "wow64"}
        flags_at, kind = (0, 0x10000) if is_32bit else (0x30, 0x100000)
        assert int.from_bytes(layer.read(thread.record, 4), "little") == thread.code
        assert int.from_bytes(layer.read(thread.context + flags_at, 4), "little") & 0xFFFF0000 == kind
        if is_32bit:
            for frame in thread.frames:
                words = layer.read(frame.child_sp + 4, 16)
                values = [int.from_bytes(words[i : i + 4], "little") for i in range(0, 16, 4)]
                assert values == [frame.return_address, *frame.args]


@pytest.mark.parametrize("name", SMALL)
def test_volatility_sees_what_the_case_describes(name: str, tmp_path: Path) -> None:
    case, truth = forged(name, tmp_path)
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session:
        check(session, case, truth)
        for process in case.machine.processes:
            if not process.modules:
                continue
            bases = {row["Base"] for row in session.rows(dlllist, pid=[process.pid])}
            gone = process.loader_residency is Residency.PAGED_OUT
            modules = [*process.modules, *(process.modules32 or ())]
            assert bases == (set() if gone else {module.base for module in modules})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ftp-2003", ("--kind", "bitmap")),
        ("ftp-2003", ("--paging", "x86")),
        ("service-x64", ("--kind", "raw")),
    ],
)
def test_other_kinds_and_paging_hold_the_same(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    case, truth = forged(name, tmp_path, *options)
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session:
        check(session, case, truth)


def test_structures_of_the_stuck_thread_are_at_the_transcripts_addresses(tmp_path: Path) -> None:
    forged("ftp-2003", tmp_path)
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session:
        kernel = session.kernel
        process = kernel.object("_EPROCESS", 0x8948FA08, absolute=True)
        assert process.UniqueProcessId == 0xA04
        assert process.Pcb.DirectoryTableBase[0] == 0x7F404520
        assert process.InheritedFromUniqueProcessId == 0x1BC
        thread = kernel.object("_ETHREAD", 0x89E3D418, absolute=True)
        assert (thread.Cid.UniqueProcess, thread.Cid.UniqueThread) == (0xA04, 0xAE8)
        block = thread.Tcb
        assert (block.Teb, block.InitialStack, block.KernelStack) == (0x7FFAD000, 0xB8FDF000, 0xB8FDE900)
        assert (block.StackLimit, block.TrapFrame) == (0xB8FDB000, 0xB8FDED64)
        assert (block.WaitTime, block.Priority, block.BasePriority, block.Alertable) == (7198, 10, 8, 1)
        assert (block.State, block.WaitMode) == (5, 1)
        assert (thread.StartAddress, thread.Win32StartAddress) == (0x77E617EC, 0x781329E1)
        trap = block.TrapFrame.dereference()
        assert (trap.Eip, trap.HardwareEsp, trap.Ebp) == (0x7C8285EC, 0x045B9F70, 0x045BA018)
        # fs:[0]: from the wait to BaseThreadStart, whose handler is asked last
        layer = session.process_layer(0xA04)
        nodes = [int.from_bytes(layer.read(0x7FFAD000, 4), "little")]
        while nodes[-1] != 0xFFFFFFFF and len(nodes) < 30:
            nodes.append(int.from_bytes(layer.read(nodes[-1], 4), "little"))
        assert nodes == sorted(nodes)
        assert nodes[-5:] == [0x045BF9B0, 0x045BFDFC, 0x045BFFA0, 0x045BFFDC, 0xFFFFFFFF]


def suitable() -> list:
    found = []
    for path in isf_files():
        name = "service-x64" if load(path).is_64bit else "ftp-2003"
        found.append(pytest.param(name, path, id=f"{name}-{path.name.partition('.')[0][:16]}"))
    return found or [pytest.param(None, None, marks=pytest.mark.skip(reason=f"no ISFs below {SHARED}"))]


@pytest.mark.parametrize(("name", "path"), suitable())
def test_a_dump_is_forged_with_the_layout_of_every_kernel(name: str, path: Path, tmp_path: Path) -> None:
    case, truth = forged(name, tmp_path, "--isf", str(path))
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session:
        check(session, case, truth)
        names = {frame.symbol for thread in truth.stuck for frame in thread.thread_stack}
        for symbol, rva in case.machine.kernel_symbols.items():
            if any(item.startswith(f"nt!{symbol}+") for item in names):
                assert session.kernel.get_symbol(symbol).address == rva
