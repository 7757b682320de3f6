# SPDX-License-Identifier: Apache-2.0
"""Server 2003 x86: threads that wait for each other's critical sections, and across two processes for mutexes.

In ledgerd.exe the thread TRANSFER has g_journal and waits for g_accounts; POSTING has it the other way round. CLOSING
waits behind them, and AUDIT for a section whose owner is gone. SETTLING waits for a mutex of REPORT, a thread of
reportd.exe, which waits for one of SETTLING's. IDLE waits for work, and JOINING for the end of IDLE.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.forge.cases import Case
from tests.forge.cases.ftp_images import Library
from tests.forge.cases.ftp_threads import (
    BASE_THREAD_START_THUNK,
    LAST,
    ApiFunctions,
    load_images,
    put_kernel_stack,
    returning,
    user_registers,
)
from tests.forge.cases.ftp_throw import throwing_functions
from tests.forge.cases.x86_kernel import Kernel
from tests.forge.chains_x86 import Chain, Images
from tests.forge.code import dword
from tests.forge.describe import Machine, Paging, Process, Region, Thread, WaitObject
from tests.forge.functions_x86 import Call, Function, ebp_frame, frameless
from tests.forge.images import ImageBuilder, pdb_of
from tests.forge.runtime_x86 import add_runtime
from tests.forge.stacks import Stack
from tests.forge.truth import Truth, TruthFrame

LEDGER, REPORTS = 0x5DC, 0x6F0
TRANSFER, POSTING, CLOSING, AUDIT, SETTLING, IDLE = range(LEDGER + 4, LEDGER + 28, 4)
REPORT, JOINING = REPORTS + 4, REPORTS + 8
GONE = 0x9F0
HEAP = 0x00250000
_ENTER, _WAIT_FOR_SECTION, _WAIT = 0x7C81A22A, 0x7C821B10, 0x7C827CFF
_MUTANT, _SYNCHRONIZATION_EVENT, _THREAD = 2, 1, 6


@dataclass
class Sections:
    """Critical sections in a program's data, with their debug information on the heap."""

    image: ImageBuilder
    heap: bytearray = field(default_factory=lambda: bytearray(0x1000))
    addresses: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, owner: int, waiters: int) -> int:
        """Add a section that `owner` holds while `waiters` threads wait; return its address.

        LockCount as Server 2003 SP1 and later have it: bit 0 clear (held), bit 1 set (nobody woken), then the
        complement of the number of waiters.
        """
        debug = HEAP + 0x40 * (len(self.addresses) + 1)
        lock_count = (~waiters << 2 | 2) & 0xFFFFFFFF
        words = (debug, lock_count, 1, owner, 0x1C4, 0)
        address = self.image.place_data(b"".join(map(dword, words)), writable=True)
        self.image.symbols[name] = address
        self.heap[debug - HEAP : debug - HEAP + 8] = dword(0) + dword(address)  # type, then the section
        self.addresses[name] = address
        return address


def build() -> Case:
    """Return the machine and the truth about it."""
    library, kernel = Library(), Kernel()
    case = _Builder(library, kernel, ApiFunctions(library))
    ledger = case.program("ledgerd.exe")
    sections = Sections(ledger)
    journal = sections.add("g_journal", TRANSFER, 2)
    accounts = sections.add("g_accounts", POSTING, 1)
    orphan = sections.add("g_archive", GONE, 1)
    event = WaitObject(_SYNCHRONIZATION_EVENT)
    settled = WaitObject(_MUTANT, name="LedgerSettled", owner=REPORT)
    reported = WaitObject(_MUTANT, owner=SETTLING)
    first = Process(LEDGER, "ledgerd.exe", 0x1BC, 0x7FFDE000, create_seconds=20)
    first.regions.append(Region(HEAP, bytes(sections.heap)))
    for tid, name, section in (
        (TRANSFER, "Transfer", accounts),
        (POSTING, "Post", journal),
        (CLOSING, "Close", journal),
        (AUDIT, "Audit", orphan),
    ):
        case.enters(first, ledger, tid, name, section)
    case.waits(first, ledger, SETTLING, "Settle", settled)
    case.waits(first, ledger, IDLE, "Idle", event)
    second = Process(REPORTS, "reportd.exe", 0x1BC, 0x7FFDE000, create_seconds=25)
    reports = case.program("reportd.exe")
    case.waits(second, reports, REPORT, "Report", reported)
    case.waits(second, reports, JOINING, "Join", WaitObject(_THREAD, waited_for=IDLE))
    return case.finish([(first, ledger), (second, reports)])


class _Builder:
    def __init__(self, library: Library, kernel: Kernel, api: ApiFunctions) -> None:
        self.library, self.kernel, self.api = library, kernel, api
        self.start = throwing_functions(library)[0][1]
        self.enter = Function(
            "RtlEnterCriticalSection",
            _ENTER,
            frameless(),
            # push [esp+4]: it passes its own argument on
            (Call(_ENTER + 0x46, _WAIT_FOR_SECTION, code=b"\xff\x74\x24\x04", after=b"", pops=4),),
            4,
        )
        self.wait = Function(
            "RtlpWaitForCriticalSection",
            _WAIT_FOR_SECTION,
            ebp_frame(0x20, ("ebx", "esi", "edi")),
            (Call(_WAIT_FOR_SECTION + 0x68, _WAIT, (0x1C4, 0, 0), 0xC),),
            4,
        )
        kernel32, ntdll = library["KERNEL32"], library["ntdll"]
        kernel32.name_function(self.start.name, kernel32.code(self.start.start, self.start.emit()))
        ntdll.name_function("KiFastSystemCallRet", ntdll.code(LAST.start, b"\xc3"))
        ntdll.name_function(self.enter.name, ntdll.code(_ENTER, self.enter.emit()), exported=True)
        ntdll.name_function(self.wait.name, ntdll.code(_WAIT_FOR_SECTION, self.wait.emit()))
        self.kernel_stack_base = 0xB9010000
        self.frames: list[tuple[Process, int, Chain, tuple[TruthFrame, ...]]] = []

    def program(self, name: str) -> ImageBuilder:
        image = ImageBuilder(
            name,
            0x00400000,
            0x4000,
            0x2000,
            0x2000,
            pdb=pdb_of(name),
            directory="\\Ledger",
            entry=0x00401200,
            has_isf=True,
        )
        add_runtime(image)
        image.code(image.entry, b"\x33\xc0\xc3")
        return image

    def enters(self, process: Process, image: ImageBuilder, tid: int, name: str, section: int) -> None:
        """Add a thread that waits in RtlEnterCriticalSection for a section."""
        routine = self._routine(process, image, name, (section,), _ENTER)
        chain = self._begin(process, routine)
        chain.enter(self.enter, args=(section,))
        chain.enter(self.wait)
        self._end(process, chain, tid, routine, WaitObject(_SYNCHRONIZATION_EVENT))

    def waits(self, process: Process, image: ImageBuilder, tid: int, name: str, waited: WaitObject) -> None:
        """Add a thread that waits in WaitForSingleObject."""
        outer, inner = self.api.functions["WaitForSingleObject"], self.api.functions["WaitForSingleObjectEx"]
        routine = self._routine(process, image, name, (0x1A4, 0xFFFFFFFF), outer.start)
        chain = self._begin(process, routine)
        chain.enter(outer, args=(0x1A4, 0xFFFFFFFF, 0))
        chain.enter(inner, args=(0x1A4, 0, 0))
        self._end(process, chain, tid, routine, waited)

    def _routine(
        self, process: Process, image: ImageBuilder, name: str, args: tuple[int, ...], target: int
    ) -> Function:
        """Add a thread routine that calls a function which removes its arguments."""
        start = 0x00401300 + 0x100 * len(process.threads)
        call = Call(start + 0x58, target, args, 4 * len(args), image.slot(target))
        routine = Function(name, start, ebp_frame(0x24, ("esi", "edi")), (call,), 4)
        image.name_function(name, image.code(start, routine.emit()))
        return routine

    def _begin(self, process: Process, routine: Function) -> Chain:
        base = 0x00130000 + 0x100000 * (len(process.threads) + 2)
        stack = Stack(base - 0x3000, base)
        stack.at(base - 12).d32(routine.start, 0)  # start address and parameter
        return Chain(stack, base - 0x10).enter(self.start, returning(self.start, routine), args=(0,)).enter(routine)

    def _end(self, process: Process, chain: Chain, tid: int, routine: Function, waited: WaitObject) -> None:
        chain.enter(self.api.functions["NtWaitForSingleObject"])
        chain.enter(LAST, ip=LAST.start)
        kernel = self.kernel.wait(self.kernel_stack_base, "NtWaitForSingleObject", chain)
        self.kernel_stack_base += 0x4000
        stack = chain.stack
        thread = Thread(
            tid,
            0x7FFDC000 - 0x1000 * len(process.threads),
            stack.base,
            stack.limit,
            user_registers(chain),
            BASE_THREAD_START_THUNK,
            routine.start,
            wait_ticks=6000,
            wait_objects=[waited],
        )
        put_kernel_stack(thread, kernel)
        process.threads.append(thread)
        process.regions.append(Region(stack.limit, stack.data()))
        self.frames.append((process, tid, chain, kernel.frames))

    def finish(self, programs: list[tuple[Process, ImageBuilder]]) -> Case:
        """Load the images and return the case."""
        names = ("ntdll", "KERNEL32")
        built = [(self.library[name], self.library[name].build()) for name in names]
        for process, image in programs:
            load_images(process, image, built)
        images = {process.pid: Images([image, *(self.library[name] for name in names)]) for process, image in programs}
        stacks = {
            f"{process.pid}:{tid}": (*kernel, *chain.frames(images[process.pid]))
            for process, tid, chain, kernel in self.frames
        }
        quiet = tuple((process.pid, tid) for process, tid, _, _ in self.frames)
        machine = Machine(
            Paging.PAE,
            (5, 2, 3790),
            [process for process, _ in programs],
            kernel_base=self.kernel.image.base,
            kernel_image=self.kernel.image.build(),
            kernel_symbols=self.kernel.symbols(),
        )
        with_isf = [image for _, image in programs] + [self.library[name] for name in names]
        return Case(machine, Truth("deadlock", "x86", (), quiet, stacks), with_isf)
