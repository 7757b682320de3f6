# SPDX-License-Identifier: Apache-2.0
"""Threads of a Server 2003 x86 process that wait as threads do: asleep, or for an object that is not signalled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.forge.cases.ftp_images import Library
from tests.forge.cases.ftp_wait import system_call
from tests.forge.cases.x86_kernel import Kernel, KernelStack
from tests.forge.chains_x86 import Chain, Images
from tests.forge.code import dword
from tests.forge.describe import Process, Region, Thread
from tests.forge.functions_x86 import Call, Function, ebp_frame, frameless
from tests.forge.images import ImageBuilder, pdb_of
from tests.forge.records import context_x86
from tests.forge.runtime_x86 import add_runtime
from tests.forge.stacks import Stack

Decoy = Callable[[Stack, Chain], None]
"""Writes to the stack of a routine that was entered last."""

BASE_THREAD_START_THUNK = 0x77E617EC
WORKER, WAITER = 0x00401220, 0x00401300


class ApiFunctions:
    """Functions of ntdll and KERNEL32 that ordinary waits go through, put into the images."""

    def __init__(self, library: Library) -> None:
        """Add the code."""
        kernel32, runtime = library["KERNEL32"], library.runtimes["KERNEL32"]
        delay, single = 0x7C826F3D, 0x7C827CFF
        self.functions = {
            "NtDelayExecution": system_call("NtDelayExecution", delay, 0x40, 8),
            "NtWaitForSingleObject": system_call("NtWaitForSingleObject", single, 0x118, 0xC),
            # Each passes its own arguments on.
            "Sleep": Function(
                "Sleep",
                0x77E424DE,
                ebp_frame(),
                (Call(0x77E424ED, 0x77E42466, code=bytes.fromhex("6a00ff7508"), after=b"", pops=8),),
                4,
            ),
            "SleepEx": Function(
                "SleepEx",
                0x77E42466,
                runtime.seh_frame(0x20),
                (
                    Call(
                        0x77E424C5,
                        delay,
                        via=kernel32.slot(delay),
                        after=b"",
                        pops=8,
                        code=bytes.fromhex("8d45d850ff750c"),
                    ),
                ),
                8,
            ),
            "WaitForSingleObject": Function(
                "WaitForSingleObject",
                0x77E61C7B,
                ebp_frame(),
                (Call(0x77E61C8D, 0x77E61C96, code=bytes.fromhex("6a00ff750cff7508"), after=b"", pops=0xC),),
                8,
            ),
            "WaitForSingleObjectEx": Function(
                "WaitForSingleObjectEx",
                0x77E61C96,
                runtime.seh_frame(0x34),
                (
                    Call(
                        0x77E61D42,
                        single,
                        via=kernel32.slot(single),
                        after=b"",
                        pops=0xC,
                        code=bytes.fromhex("8d45d850ff7510ff7508"),
                    ),
                ),
                0xC,
            ),
        }
        for name, function in self.functions.items():
            image = library["ntdll" if name.startswith("Nt") else "KERNEL32"]
            image.name_function(name, image.code(function.start, function.emit()), exported=True)


def service_image(name: str, directory: str) -> tuple[ImageBuilder, dict[str, Function]]:
    """Return a service's program, with a thread routine that sleeps and one that waits."""
    image = ImageBuilder(name, 0x00400000, 0x4000, pdb=pdb_of(name), directory=directory, entry=0x00401200)
    add_runtime(image)
    routines = {
        "SleepEx": Function(
            "HouseKeeping",
            WORKER,
            ebp_frame(0x28, ("esi", "edi")),
            (Call(0x0040125A, 0x77E424DE, (60_000,), 4, image.slot(0x77E424DE), sets={"esi": 0x00404010}),),
            4,
        ),
        "WaitForSingleObjectEx": Function(
            "WaitForWork",
            WAITER,
            ebp_frame(0x104, ("ebx", "esi", "edi")),
            (Call(0x00401388, 0x77E61C7B, (0x1A4, 0xFFFFFFFF), 8, image.slot(0x77E61C7B), sets={"ebx": 1}),),
            4,
        ),
    }
    for function in routines.values():
        image.name_function(function.name, image.code(function.start, function.emit()))
    image.code(image.entry, b"\x33\xc0\xc3")
    return image, routines


@dataclass(frozen=True)
class Waiting:
    """A waiting thread with the memory of its stack, and its frames."""

    thread: Thread
    stack: Stack
    chain: Chain
    kernel: KernelStack

    def region(self) -> Region:
        """Return the committed part of the stack."""
        return Region(self.stack.limit, self.stack.data())


@dataclass
class ThreadFactory:
    """Makes waiting threads of one process."""

    api: ApiFunctions
    kernel: Kernel
    start: Function
    """KERNEL32!BaseThreadStart."""
    kernel_stack_base: int
    """Where the next thread's kernel stack is; goes up."""

    def waiting(
        self, routine: Function, kind: str, *, tid: int, teb: int, base: int, since: int, decoy: Decoy | None = None
    ) -> Waiting:
        """Return a thread that runs `routine` and waits in `kind` (`SleepEx`, `WaitForSingleObjectEx`).

        `decoy` writes to the stack once the routine is entered.
        """
        stack = Stack(base - 0x3000, base)
        stack.at(base - 12).d32(routine.start, 0)  # start address and parameter: BaseThreadStart's arguments
        chain = Chain(stack, base - 0x10).enter(self.start, returning(self.start, routine), args=(0,))
        chain.enter(routine)
        if decoy is not None:
            decoy(stack, chain)
        outer = kind.removesuffix("Ex")
        service = "NtDelayExecution" if kind == "SleepEx" else "NtWaitForSingleObject"
        given = routine.calls[-1].args
        chain.enter(self.api.functions[outer], args=(*given, 0))
        pointer = lambda ebp: ebp - 0x28  # noqa: E731 - the timeout, a local
        inner = (0, pointer) if kind == "SleepEx" else (given[0], 0, pointer)
        chain.enter(self.api.functions[kind], args=inner)
        return self.in_service(chain, self.api.functions[service], routine, tid=tid, teb=teb, since=since)

    def in_service(self, chain: Chain, stub: Function, routine: Function, *, tid: int, teb: int, since: int) -> Waiting:
        """Return the thread that `chain` is of, which runs `routine` and waits in the system call of `stub`."""
        stack, service = chain.stack, stub.name
        chain.enter(stub)
        chain.enter(LAST, ip=LAST.start)
        kernel = self.kernel.wait(self.kernel_stack_base, service, chain)
        self.kernel_stack_base += 0x4000
        thread = Thread(
            tid,
            teb,
            stack.base,
            stack.limit,
            user_registers(chain),
            BASE_THREAD_START_THUNK,
            routine.start,
            wait_reason=4 if service == "NtDelayExecution" else 6,
            wait_ticks=since,
        )
        put_kernel_stack(thread, kernel)
        return Waiting(thread, stack, chain, kernel)


LAST = Function("KiFastSystemCallRet", 0x7C8285EC, frameless())


def returning(start: Function, routine: Function) -> Call:
    """Return BaseThreadStart's call of a thread routine."""
    call = start.calls[-1]
    return Call(call.returns_to, routine.start, pops=4)


def user_registers(chain: Chain) -> dict[str, int]:
    """Return what the trap frame of the system call at the end of `chain` holds."""
    selectors = {"cs": 0x1B, "ss": 0x23, "ds": 0x23, "es": 0x23, "fs": 0x3B, "gs": 0}
    return {**chain.placed[-1].registers, "eax": 0, "ecx": 0, "edx": 0x7C8285EC, "eflags": 0x246, **selectors}


def thread_block(teb: int, chain: Chain) -> Region:
    """Return the page of a TEB with the head of the exception registrations; the rest of it is the writer's."""
    return Region(teb, dword(chain.seh).ljust(0x1000, b"\0"))


def put_kernel_stack(thread: Thread, kernel: KernelStack) -> None:
    """Give `thread` its kernel stack."""
    thread.kernel_stack_base, thread.kernel_stack_limit = kernel.base, kernel.limit
    thread.kernel_stack_pointer, thread.trap_frame = kernel.pointer, kernel.trap_frame
    thread.kernel_stack = kernel.pieces


def filter_address(stack: Stack, chain: Chain) -> None:
    """Leave UnhandledExceptionFilter's address, and a return address inside it, among the routine's locals."""
    stack.at(chain.placed[-1].return_slot - 0x40).d32(0x77E7608D, 0x77E761B7, 0x045BA7A4)


def handled_exception(stack: Stack, chain: Chain) -> None:
    """Leave what an exception that was handled long ago left below the stack pointer."""
    registers = dict.fromkeys(("eax", "ebx", "ecx", "edx", "esi", "edi", "gs"), 0)
    slot = chain.placed[-1].return_slot
    registers |= {"cs": 0x1B, "ss": 0x23, "ds": 0x23, "es": 0x23, "fs": 0x3B, "eflags": 0x206}
    registers |= {"eip": 0x77E4BEE7, "esp": slot - 0x120, "ebp": slot - 0xCC}
    context, record = slot - 0x1400, slot - 0x1000
    stack.at(context).raw(context_x86(registers, 0x1003F))
    stack.at(record).d32(0xE06D7363, 1, 0, 0x77E4BEE7, 3, 0x19930520, slot - 0x80, 0x03440A54)
    stack.at(context - 0x40).d32(record, context)


DECOYS = (None, handled_exception, filter_address)


def add_waiting(process: Process, routines: dict[str, Function], factory: ThreadFactory, images: Images) -> dict:
    """Give a process three waiting threads, two of them with decoys; return their stacks by TID."""
    frames = {}
    for index, kind in enumerate(("WaitForSingleObjectEx", "SleepEx", "WaitForSingleObjectEx")):
        tid, teb = process.pid + 4 + 4 * index, 0x7FFDC000 - 0x1000 * index
        if process.peb <= 0x7FFDD000:
            teb -= 0x5000
        base, since = 0x00130000 + 0x100000 * index, 5000 + 100 * index
        waiting = factory.waiting(routines[kind], kind, tid=tid, teb=teb, base=base, since=since, decoy=DECOYS[index])
        process.threads.append(waiting.thread)
        process.regions += [waiting.region(), thread_block(teb, waiting.chain)]
        frames[tid] = (*waiting.kernel.frames, *waiting.chain.frames(images))
    return frames


def load_images(process: Process, program: ImageBuilder, libraries: list[tuple[ImageBuilder, bytes]]) -> None:
    """Load a program and built libraries into a process."""
    process.image_path = f"\\Device\\HarddiskVolume1{program.directory}\\{program.name}"
    process.command_line = f'"C:{program.directory}\\{program.name}"'
    for image, data in ((program, program.build()), *libraries):
        process.modules.append(image.loaded(data))
        process.regions.append(image.region(data))
