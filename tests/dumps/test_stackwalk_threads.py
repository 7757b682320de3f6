# SPDX-License-Identifier: Apache-2.0
"""`windows.stackwalk` on threads that are not waiting in a system call, and on kernel structures that lie."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.forge.__main__ import forge
from tests.forge.cases import Case, deadlock
from tests.forge.cases.ftp_images import Library
from tests.forge.cases.ftp_threads import ApiFunctions, ThreadFactory, service_image
from tests.forge.cases.ftp_throw import throwing_functions
from tests.forge.cases.machine_x64 import VERSION, Site
from tests.forge.cases.x86_kernel import Kernel
from tests.forge.chains_x86 import Chain, Images
from tests.forge.describe import Process, Region, Thread, ThreadState
from tests.forge.functions_x86 import Call, Function, ebp_frame, frameless
from tests.forge.images import ImageBuilder
from tests.forge.records import context_x86, cpu_area
from tests.forge.stacks import Stack
from tests.forge.truth import Truth, TruthFrame
from tests.support.patched_memory import Patches, opened
from tests.support.volatility_session import Session, open_dump
from throwstack.core.sides import BOTH, Side, sides_of
from throwstack.names.frame_names import name_of
from throwstack.names.name_style import NameStyle
from throwstack.volatility.memory.machine import Machine as Opened
from throwstack.volatility.processes import ProcessReader
from throwstack.volatility.survey import Selection, Survey
from throwstack.volatility.tables.thread_table import ThreadTable, fold, summary
from throwstack.volatility.thread_stacks import thread_stack
from throwstack.volatility.thread_survey import ThreadReport, ThreadSurvey

STARTUP, TRAP = 0x8092BF00, 0x8088A600
KERNEL_CODE, USER_CODE = 8, 0x1B


def waiting_in_system(kernel: Kernel, chain: Chain, tid: int, start: int, reason: int) -> Thread:
    """A thread of System, which has no user-mode stack; its kernel chain goes on into a wait."""
    for name in ("KeWaitForSingleObject", "KiSwapThread"):
        chain.enter(kernel.functions[name])
    pointer = kernel.switch_out(chain)
    stack = chain.stack
    return Thread(
        tid,
        0,
        0,
        0,
        {},
        start,
        wait_reason=reason,
        wait_mode=0,
        kernel_stack_base=stack.base,
        kernel_stack_limit=stack.limit,
        kernel_stack_pointer=pointer,
        kernel_stack=stack.pieces(),
        has_trap_frame=False,
    )


def system_thread(kernel: Kernel) -> tuple[Thread, Chain]:
    """A thread of System that waits for work; the outermost function has no caller."""
    startup = Function("PspSystemThreadStartup", STARTUP, ebp_frame(0x10), (Call(STARTUP + 0x2E, 0x80828D3C),))
    kernel.image.name_function(startup.name, kernel.image.code(STARTUP, startup.emit()))
    stack = Stack(0xB9800000, 0xB9803000)
    chain = Chain(stack, stack.base - 8).enter(startup, args=(0x89AE3E18, 15, 0, 0, 0))
    return waiting_in_system(kernel, chain, 8, STARTUP, 15), chain


def interrupted_thread(kernel: Kernel) -> tuple[Thread, list[TruthFrame]]:
    """A thread of System that met a page fault in its routine and waits for the page; no function called the other."""
    routine = Function("ExpWorkerThread", STARTUP + 0x100, ebp_frame(0x20, ("ebx", "esi", "edi")))
    fault = Function("KiTrap0E", TRAP, frameless(), (Call(TRAP + 0xF7, 0x80828D3C, (0x89AE3E18, 2, 0, 0, 0), 0x14),))
    for function in (routine, fault):
        kernel.image.name_function(function.name, kernel.image.code(function.start, function.emit()))
    stack = Stack(0xB9900000, 0xB9903000)
    outer = Chain(stack, stack.base - 8, ebx=1, esi=2, edi=3, ebp=0)
    outer.enter(routine, ip=routine.start + 9)
    registers = outer.placed[0].registers
    # KTRAP_FRAME of a trap in the kernel: it ends where the interrupted esp was, HardwareEsp at +74h.
    trap = registers["esp"] - 0x74
    stack.at(trap).d32(registers["ebp"], registers["eip"], 0xBADB0D00)
    for offset, name in ((0x54, "edi"), (0x58, "esi"), (0x5C, "ebx"), (0x60, "ebp"), (0x68, "eip")):
        stack.at(trap + offset).d32(registers[name])
    stack.at(trap + 0x6C).d32(8, 0x246)  # cs, eflags
    slot = trap - 0x18
    stack.at(slot + 4).d32(*fault.calls[0].args)
    inner = Chain(stack, slot, fault.calls[0].returns_to, ebp=trap)
    thread = waiting_in_system(kernel, inner, 12, STARTUP + 0x100, 2)
    names = Images([kernel.image])
    entry = TruthFrame(TRAP + 0xF7, slot - 4, registers["eip"], None, names.name(TRAP + 0xF7))
    return thread, [*inner.frames(names), entry, *outer.frames(names)]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Session, dict[int, list[TruthFrame]]]]:
    kernel = Kernel()
    thread, chain = system_thread(kernel)
    interrupted, frames = interrupted_thread(kernel)
    machine = kernel.machine([Process(4, "System", 0, threads=[thread, interrupted], create_seconds=0)])
    with session_of(Case(machine, Truth("system", "x86")), tmp_path_factory.mktemp("system")) as session:
        yield session, {thread.tid: list(chain.frames(Images([kernel.image]))), interrupted.tid: frames}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Session, Truth]]:
    """The case `deadlock`, whose thread TRANSFER was running."""
    case = deadlock.build()
    case.machine.processes[0].threads[0].state = ThreadState.RUNNING
    with session_of(case, tmp_path_factory.mktemp("locked")) as session:
        yield session, case.truth


def session_of(case: Case, out: Path):
    forge(case, out)
    return open_dump(out / "MEMORY.DMP", out / "isf")


def reports(machine: Opened, *pids: int) -> dict[int, ThreadReport]:
    return {report.thread.tid: report for report in ThreadSurvey(Survey(machine, Selection(pids))).reports()}


def call_sites(report: ThreadReport, *sides: str) -> list[str]:
    return [
        str(name_of(side.target.symbols, frame))
        for side in report.sides
        if not sides or side.label in sides
        for frame in side.frames
    ]


def endings(report: ThreadReport) -> dict[str, str]:
    return {side.label: side.ending for side in report.sides}


def test_threads_of_system_have_a_kernel_stack_only(system: tuple[Session, dict[int, list[TruthFrame]]]):
    session, truth = system
    report = reports(opened(session))[8]
    assert call_sites(report) == [frame.symbol.replace("ntkrpamp!", "nt!") for frame in truth[8]]
    assert endings(report) == {"kernel": ""}
    assert str(report.start) == "nt!PspSystemThreadStartup"


def test_a_trap_in_the_kernel_is_crossed(system: tuple[Session, dict[int, list[TruthFrame]]]):
    session, truth = system
    (side,) = reports(opened(session))[12].sides
    found = [(frame.ip, frame.child_sp, frame.return_address) for frame in side.frames]
    assert found == [(frame.ip, frame.child_sp, frame.return_address) for frame in truth[12]]
    assert side.ending == ""
    assert [bool(frame.note) for frame in side.frames] == [False, False, False, True, False]


def processor_context(truth: Truth, cs: int) -> bytes:
    """The CONTEXT of a processor that runs TRANSFER, in the kernel where it gave up the processor or in user mode."""
    frames = truth.stacks[f"{deadlock.LEDGER}:{deadlock.TRANSFER}"]
    frame = frames[0] if cs == KERNEL_CODE else next(frame for frame in frames if frame.symbol.startswith("ntdll!"))
    zeros = dict.fromkeys(("eax", "ecx", "edx", "ds", "es", "fs", "gs"), 0)
    return context_x86({**zeros, **frame.registers, "cs": cs, "ss": cs + 8, "eflags": 0x246}, 0x10007)


def running(session: Session, truth: Truth, cs: int) -> ThreadReport:
    machine = opened(session)
    patches = Patches(machine)
    table = session.kernel.get_symbol("KiProcessorBlock").address + session.kernel.offset
    block = machine.pointer(machine.memory, table)
    frame = machine.layout.offset("_KPRCB.ProcessorState.ContextFrame")
    patches.write(block + frame, processor_context(truth, cs))
    return reports(patches.apply(), deadlock.LEDGER)[deadlock.TRANSFER]


def test_a_running_thread_is_walked_from_its_processors_registers(locked: tuple[Session, Truth]):
    session, truth = locked
    expected = [frame.symbol for frame in truth.stacks[f"{deadlock.LEDGER}:{deadlock.TRANSFER}"]]
    assert call_sites(running(session, truth, KERNEL_CODE)) == expected
    in_user_mode = running(session, truth, USER_CODE)
    assert call_sites(in_user_mode) == [name for name in expected if not name.startswith("nt!")]
    assert endings(in_user_mode) == {"x86": ""}


def test_a_running_thread_without_registers_has_no_stack(locked: tuple[Session, Truth]):
    session, _ = locked
    report = reports(opened(session), deadlock.LEDGER)[deadlock.TRANSFER]
    assert call_sites(report) == []
    assert endings(report) == {"kernel": "the thread was running: its registers are not in the dump"}


def changed(session: Session, path: str, value: int) -> ThreadReport:
    """The report of the thread POSTING, a member of whose ETHREAD was changed."""
    machine = opened(session)
    address = reports(machine, deadlock.LEDGER)[deadlock.POSTING].thread.address
    patches = Patches(machine)
    patches.put(address, path, value)
    return reports(patches.apply(), deadlock.LEDGER)[deadlock.POSTING]


def test_a_kernel_stack_that_was_paged_out_costs_the_kernels_frames_only(locked: tuple[Session, Truth]):
    session, _ = locked
    report = changed(session, "_ETHREAD.Tcb.KernelStackResident", 0)
    assert endings(report) == {"kernel": "the kernel stack is paged out", "x86": ""}
    assert call_sites(report, "x86")[0] == "ntdll!KiFastSystemCallRet"


@pytest.mark.parametrize(
    ("pointer", "reason"),
    [
        (0, "KernelStack 0x0 is not on the kernel stack"),
        (0x401000, "KernelStack 0x401000 is not on the kernel stack"),
        (0xB9013E00, "there is no switch frame at 0xb9013e00"),
    ],
)
def test_a_kernel_stack_that_is_none_is_said_to_be(locked: tuple[Session, Truth], pointer: int, reason: str):
    session, _ = locked
    report = changed(session, "_ETHREAD.Tcb.KernelStack", pointer)
    assert endings(report)["kernel"].startswith(reason)
    assert call_sites(report, "x86")[0] == "ntdll!KiFastSystemCallRet"


def test_damaged_kernel_memory_costs_rows_and_no_more(locked: tuple[Session, Truth]):
    session, _ = locked
    whole = reports(opened(session))
    chance = random.Random(7)
    for _ in range(12):
        machine = opened(session)
        patches = Patches(machine)
        for report in whole.values():
            for start, size in ((report.thread.address + 0x20, 0x1C0), (report.thread.kernel_stack, 0x200)):
                if chance.random() < 0.5:
                    patches.write(start + 4 * chance.randrange(size // 4), chance.randbytes(4 * chance.randrange(1, 9)))
        table, changed_machine = ThreadTable(NameStyle.PLAIN, unique=True), patches.apply()
        found = ThreadSurvey(Survey(machine, Selection())).reports()
        stacks = [table.stack(thread_stack(changed_machine, report), report.owner.address) for report in found]
        width = len(table.columns)
        rows = [row for stack in fold(stacks) for _, row in table.rows(stack)]
        assert {len(row) for row in rows} <= {width}
        assert all(len(value) < 4096 for row in rows for value in row if isinstance(value, str))


@dataclass(frozen=True)
class Wow64:
    """A thread of a 32-bit process on 64-bit Windows: its frames in the kernel, in 64-bit code and in 32-bit code."""

    session: Session
    pid: int
    tid: int
    kernel: list[str]
    native: list[str]
    x86: list[str]


@pytest.fixture(scope="module")
def wow64(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wow64]:
    site = Site("wow64")
    process, threads = site.service(0x1000, peb32=0x7FFDE000, modules32=[])
    waiting = threads.idle(0x1004, "main", 3000)
    site.add(process, waiting)
    frames32, images = add_32bit_half(process)
    case = site.case()
    case.images.extend(image for image in images if image.has_isf)
    with session_of(case, tmp_path_factory.mktemp("wow64")) as session:
        symbols = [frame.symbol for frame in waiting.frames]
        kernel = [name for name in symbols if name.startswith("nt!")]
        yield Wow64(session, process.pid, 0x1004, kernel, symbols[len(kernel) :], frames32)


def add_32bit_half(process: Process) -> tuple[list[str], list[ImageBuilder]]:
    """Give a process's only thread 32-bit modules and a 32-bit stack that waits; return its frames and the images."""
    library = Library()
    start = throwing_functions(library)[0][1]
    library["KERNEL32"].name_function(start.name, library["KERNEL32"].code(start.start, start.emit()))
    library["ntdll"].name_function("KiFastSystemCallRet", library["ntdll"].code(0x7C8285EC, b"\xc3"))
    factory = ThreadFactory(ApiFunctions(library), Kernel(), start, 0xB9010000)
    program, routines = service_image("classic.exe", "\\Classic")
    kind = "WaitForSingleObjectEx"
    made = factory.waiting(routines[kind], kind, tid=4, teb=0, base=0x130000, since=0)
    images = [program, library["ntdll"], library["KERNEL32"]]
    process.modules32 = []
    for image in images:
        data = image.build()
        process.modules32.append(image.loaded(data))
        process.regions.append(image.region(data))
    process.regions.append(made.region())
    (thread,) = process.threads
    thread.teb32, thread.stack32_base, thread.stack32_limit = 0x7FFDC000, made.stack.base, made.stack.limit
    # TEB64.TlsSlots[1] leads to the CPU area: flags, machine, the 32-bit CONTEXT.
    area = 0x00260000
    teb = bytearray(0x2000)
    struct.pack_into("<Q", teb, 0x1488, area)
    process.regions.append(Region(thread.teb, bytes(teb)))
    registers = {**made.thread.registers, "cs": 0x23, "ss": 0x2B}
    process.regions.append(Region(area, cpu_area(registers, 0x10007, VERSION)))
    return [frame.symbol for frame in made.chain.frames(Images(images))], images


@pytest.mark.parametrize(
    ("word", "sides"),
    [
        ("x86", ("kernel", "x86")),
        ("32", ("kernel", "x86")),
        ("native", ("kernel", "native")),
        ("both", ("kernel", "native", "x86")),
    ],
)
def test_a_wow64_thread_has_two_user_stacks(wow64: Wow64, word: str, sides: tuple[str, ...]):
    walk = ThreadSurvey(Survey(opened(wow64.session), Selection([wow64.pid], sides=sides_of(word))))
    (report,) = walk.reports()
    expected = {"kernel": wow64.kernel, "native": wow64.native, "x86": wow64.x86}
    assert tuple(side.label for side in report.sides) == sides
    assert {side: call_sites(report, side) for side in sides} == {side: expected[side] for side in sides}
    assert all(not side.ending for side in report.sides)


def test_registers_of_32_bit_code_are_not_taken_for_those_of_64_bit_code(wow64: Wow64):
    """An interrupt hit the thread in 32-bit code: the one trap frame there is holds that side's registers."""
    patches = Patches(opened(wow64.session))
    reader = ProcessReader(patches.machine)
    process = reader.open(wow64.session.processes()[wow64.pid])
    assert process is not None
    (thread,) = process.threads
    before = reader.stack(process, thread, Side.X86).registers
    assert before is not None
    patches.put(thread.trap_frame, "_KTRAP_FRAME.SegCs", 0x23)
    patches.put(thread.trap_frame, "_KTRAP_FRAME.ExceptionActive", 0)
    for name, value in (("Rip", before.ip), ("Rsp", before.sp), ("Rbp", before.bp), ("Rbx", 0x5EED0000)):
        assert value is not None
        patches.put(thread.trap_frame, f"_KTRAP_FRAME.{name}", value)
    (report,) = ThreadSurvey(Survey(patches.apply(), Selection([wow64.pid], sides=BOTH))).reports()
    assert call_sites(report, "x86") == wow64.x86
    assert endings(report) == {"kernel": "", "native": "the thread was in 32-bit code", "x86": ""}
    native = ProcessReader(patches.machine).stack(process, thread, Side.NATIVE)
    assert (native.registers, native.missing) == (None, "the thread was in 32-bit code")


def test_a_frozen_thread_says_so(locked: tuple[Session, Truth]):
    session, _ = locked
    report = changed(session, "_ETHREAD.Tcb.FreezeCount", 1)
    assert report.blockage.facts.freeze_count == 1
    assert ", freeze count 1" in summary(thread_stack(opened(session), report))
