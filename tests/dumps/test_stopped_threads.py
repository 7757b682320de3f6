# SPDX-License-Identifier: Apache-2.0
"""Threads that an exception has stopped in the kernel, where a debugger or the error port is asked."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.forge.__main__ import forge
from tests.forge.cases import handlers_x86, x86_kernel
from tests.forge.cases.dispatch_cases import _begin
from tests.forge.cases.dispatch_x64 import enter
from tests.forge.cases.dispatch_x86 import DispatchCode, Fault
from tests.forge.cases.machine_x64 import Site
from tests.forge.cases.threads_x64 import Threads, Waiting
from tests.forge.chains_x86 import Chain
from tests.forge.records import record_x64
from tests.support.vol import vol

PID = 0x1C2C
BREAKPOINT, DEBUG_PRINT = 0x80000003, 0x40010006
READS = 5
"""Where in ledger::hash_bytes the instruction that reads is."""


class Raises(x86_kernel.Kernel):
    """A kernel of Server 2003, in which NtRaiseException asks for the second chance."""

    def wait(self, base: int, service: str, user: Chain, size: int = 0x3000) -> x86_kernel.KernelStack:
        """Lay out the kernel stack of NtRaiseException as it is when the error port was asked."""
        return super().wait(base, "second chance", user, size)


def at_read(threads: Threads, tid: int, service: str) -> Waiting:
    """Return a thread that waits in the kernel, which interrupted it at the instruction that reads."""
    chain, teb = _begin(threads)
    enter(threads, chain, "ledger::Reader::Loop", "ledger::Cache::Refresh", "ledger::Cache::Lookup")
    leaf = threads.program["ledger::hash_bytes"]
    chain.enter(leaf, ip=leaf.start + READS)
    thread, frames = threads._thread(chain, tid, teb, "ledger::Reader::Loop", since=6000, service=service)
    thread.exception_active = 2 if service == "second chance" else 1
    return Waiting(thread, threads._region(chain.stack), frames)


@pytest.mark.parametrize("service", ["exception", "second chance"])
def test_a_thread_that_the_kernel_stopped_over_a_fault_has_a_row(tmp_path: Path, service: str):
    site = Site("stopped")
    process, threads = site.service(PID)
    stopped = at_read(threads, PID + 4, service)
    record = threads.kernel.record
    site.add(process, stopped)
    forge(site.case(), tmp_path)
    (row,) = vol(tmp_path, "windows.unhandled").rows
    assert row["TID"] == PID + 4
    assert row["Verdict"] == "stopped by an exception in the kernel: waits for a debugger or the error port"
    assert row["Blocked In"] == "nt!DbgkForwardException"
    assert row["Exception"].startswith("ACCESS_VIOLATION reading 0x0000000000000018")
    assert row["Thrown At"] == "ledgersvc!ledger::hash_bytes+0x5"
    assert row["Signature"].startswith("ledgersvc!ledger::hash_bytes")
    assert row["Record"] == record
    shown = [frame["Call Site"].split("+")[0] for frame in vol(tmp_path, "windows.cxrstack").rows]
    assert shown[:2] == ["ledgersvc!ledger::hash_bytes", "ledgersvc!ledger::Cache::Lookup"]


def test_on_x86_the_second_chance_is_seen_although_the_walk_begins_at_the_throw(tmp_path: Path):
    kernel, faults = Raises(), []

    def second_chance(code: DispatchCode, fault: Fault) -> str:
        code.second_chance(fault)
        kernel.fault = (0xC0000005, fault.registers["eip"])
        faults.append(fault)
        return "NtRaiseException"

    case = handlers_x86.built([(second_chance, 0xC0000005, 0)], kernel)
    (process,) = case.machine.processes
    (thread,) = process.threads
    thread.registers |= faults[0].registers
    forge(case, tmp_path)
    (row,) = vol(tmp_path, "windows.unhandled").rows
    assert row["Blocked In"] == "nt!DbgkForwardException"
    assert row["Exception"].startswith("ACCESS_VIOLATION reading 0x00000018")
    assert row["Thrown At"].startswith("svchost+")
    assert row["Found By"] == "record on the kernel stack"


def test_threads_that_wait_in_a_page_fault_have_none_whatever_is_left_on_their_kernel_stacks(tmp_path: Path):
    site = Site("paging")
    process, threads = site.service(PID)
    for index in range(2):
        waiting = at_read(threads, PID + 4 + 4 * index, "page fault")
        thread = waiting.thread
        if index:
            # An earlier fault of the same instruction: its record, and a return address in DbgkForwardException.
            forward = threads.kernel.functions["DbgkForwardException"].start + 0xA3
            left = struct.pack("<Q", forward) + record_x64(0xC0000005, 0, thread.registers["rip"], (0, 0x18))[:0x30]
            at = next(address for address in _free(thread.kernel_stack, thread.trap_frame, len(left)))
            assert at > thread.kernel_stack_pointer
            thread.kernel_stack[at] = left
        site.add(process, waiting)
    forge(site.case(), tmp_path)
    output = vol(tmp_path, "windows.unhandled")
    assert output.rows == []
    assert "missed" not in output.err


def test_what_only_tells_a_debugger_something_is_no_row(tmp_path: Path):
    site = Site("signals")
    process, threads = site.service(PID)
    threads.kernel.code = DEBUG_PRINT
    site.add(process, at_read(threads, PID + 4, "exception"))
    forge(site.case(), tmp_path)
    assert vol(tmp_path, "windows.unhandled").rows == []


@pytest.mark.parametrize(("debug_port", "rows"), [(0, 1), (0xFFFFC00012345678, 0)])
def test_a_breakpoint_is_a_failure_unless_a_debugger_is_attached(tmp_path: Path, debug_port: int, rows: int):
    site = Site("breakpoint")
    process, threads = site.service(PID)
    process.debug_port = debug_port
    threads.kernel.code = BREAKPOINT
    site.add(process, at_read(threads, PID + 4, "exception"))
    forge(site.case(), tmp_path)
    assert len(vol(tmp_path, "windows.unhandled").rows) == rows


def _free(pieces: dict[int, bytes], below: int, size: int):
    """Yield places of `size` bytes between the pieces of a kernel stack, the outermost first."""
    end = below
    for start in sorted(pieces, reverse=True):
        after = start + len(pieces[start])
        if after < end and end - after >= size:
            yield (end - size) & -8
        end = min(end, start)
