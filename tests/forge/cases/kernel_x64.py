# SPDX-License-Identifier: Apache-2.0
"""The kernel half of waiting threads of a Windows 10 x64 system: functions of nt, and the stacks they leave.

A system call keeps rbx, rbp, rsi and rdi in the trap frame; r12 to r15 are where the kernel's functions pushed them.
A page fault keeps rbp and the volatile registers there; rbx, rsi and rdi are where r12 to r15 are.
The thread gave up the processor in KiSwapContext, with a KSWITCHFRAME at KTHREAD.KernelStack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.forge.chains_x64 import Chain
from tests.forge.chains_x86 import Images
from tests.forge.describe import Thread
from tests.forge.functions_x64 import (
    ALLOC_LARGE,
    PUSH_MACHFRAME,
    PUSH_NONVOL,
    SAVE_NONVOL,
    SET_FPREG,
    Call,
    Frame,
    Function,
    add_chkstk,
    unwind_info,
)
from tests.forge.images import ImageBuilder
from tests.forge.pe_format import AMD64
from tests.forge.records import record_x64
from tests.forge.stacks import Stack
from tests.forge.truth import TruthFrame

BASE = 0xFFFFF80324200000
# The functions keep to a stretch in which no kernel at hand has a variable of ours, so that symbols of either fit.
STACKS = 0xFFFF8A0F40000000
TRAP_FRAME_SIZE, SWITCH_FRAME_SIZE, STACK_SIZE = 0x190, 0x40, 0x6000
_SYSTEM_CALL, _SERVICE_END = BASE + 0x3200, BASE + 0x3300
_RETURN = _SERVICE_END + 0x25
_PAGE_FAULT = BASE + 0x3340
_FAULT_RETURN = _PAGE_FAULT + 0xE2
_ARGUMENTS = 0x70
"""Bytes that the dispatcher makes room for below the trap frame."""
_MANY = ("rbx", "rsi", "rdi", "r12", "r13", "r14", "r15")
_ALL = ("rbp", *_MANY)


def _functions() -> dict[str, Function]:
    def at(rva: int) -> int:
        return BASE + 0x2000 + rva

    swap = at(0x2B00)
    saves = {"rbx": 0x100, "rdi": 0x108, "rsi": 0x110, "r12": 0x118, "r13": 0x120, "r14": 0x128, "r15": 0x130}
    commit = at(0x2100)
    functions = (
        Function("NtWaitForMultipleObjects", at(0x1600), Frame(_MANY, 0x1A0), (
            Call(at(0x1719), at(0x1900), sets={"rbx": 2, "r12": 0, "r15": 1}),)),
        Function("ObWaitForMultipleObjects", at(0x1900), Frame(_ALL, 0x98), (
            Call(at(0x1BF0), at(0x1D00), sets={"rbp": 1, "r13": 0xFFFFE00010001870, "r14": 2}),)),
        Function("KeWaitForMultipleObjects", at(0x1D00), Frame(("rbp", *_MANY[1:]), 0xA0, {"rbx": 8}), (
            Call(at(0x1FBE), commit, sets={"rbx": 0xFFFFE00010002040, "rdi": 0}),)),
        Function("KiCommitThreadWait", commit, Frame(("rdi",), 0x30, {"rbx": 8, "rbp": 16, "rsi": 24}), (
            Call(commit + 0x14F, at(0x2400), sets={"rsi": 0xFFFFF80321C5F180}),)),
        Function("KiSwapThread", at(0x2400), Frame(_ALL, 0x88), (Call(at(0x2900), swap, sets={"r14": 0}),)),
        Function("KiSwapContext", swap, Frame(
            (), 0x138, saves=saves, xmm={number: 0x30 + 16 * (number - 6) for number in range(6, 16)}), (
            Call(swap + 0x76 + 0x40, swap + 0x180),)),
        # It keeps rbp in the switch frame; the thread's rsp is at the frame's start.
        Function("SwapContext", swap + 0x180, Frame(allocation=0x38, saves={"rbp": 0x30})),
        Function("NtWaitForSingleObject", at(0x2D00), Frame(("rsi", "rdi", "r14"), 0x60, {"rbx": 8}), (
            Call(at(0x2DB9), at(0x2F00), sets={"rsi": 0xFFFFE00010009A60, "r14": 0}),), version=2),
        Function("KeWaitForSingleObject", at(0x2F00), Frame(("rbp", *_MANY[1:]), 0x80, {"rbx": 8}), (
            Call(at(0x3133), commit, sets={"rbx": 0xFFFFE00010002040}),)),
        Function("MmAccessFault", at(0x1480), Frame(_ALL, 0x88), (
            Call(at(0x1552), at(0x2F00), sets={"rbx": 0, "rsi": 3, "rdi": 0xFFFFE00010003000}),)),
        Function("NtDelayExecution", at(0x3200), Frame(("rbx",), 0x30), (
            Call(at(0x325F), at(0x3300), sets={"rbx": 1}),)),
        Function("KeDelayExecutionThread", at(0x3300), Frame(("rdi", "r14"), 0x78, {"rbx": 16, "rsi": 24}), (
            Call(at(0x3422), commit, sets={"rdi": 0}),)),
        Function("NtWaitForWorkViaWorkerFactory", at(0x3500), Frame(_ALL, 0x148), (
            Call(at(0x36D1), at(0x3800), sets={"r12": 0xFFFFE00010007B30}),)),
        Function("IoRemoveIoCompletion", at(0x3800), Frame(("rbp", *_MANY[1:]), 0x90, {"rbx": 16}), (
            Call(at(0x3898), at(0x3A00)),)),
        Function("KeRemoveQueueEx", at(0x3A00), Frame(("rbp", *_MANY[1:]), 0x70, {"rbx": 8}), (
            Call(at(0x3C5E), commit, sets={"r15": 0}),)),
        Function("KiDispatchException", at(0x3C90), Frame(_ALL, 0x148), (
            Call(at(0x3D11), at(0x3D80), sets={"rsi": 0, "r12": 1}),)),
        Function("DbgkForwardException", at(0x3D80), Frame(("rbp", *_MANY[1:]), 0x100, {"rbx": 8}), (
            Call(at(0x3E23), at(0x2F00), sets={"rbx": 0xFFFFE00010005000}),)),
    )  # fmt: skip
    return {function.name: function for function in functions}


_WAITS = {
    "NtWaitForMultipleObjects": ("NtWaitForMultipleObjects", "ObWaitForMultipleObjects", "KeWaitForMultipleObjects"),
    "NtWaitForSingleObject": ("NtWaitForSingleObject", "KeWaitForSingleObject"),
    "page fault": ("MmAccessFault", "KeWaitForSingleObject"),
    "exception": ("KiDispatchException", "DbgkForwardException", "KeWaitForSingleObject"),
    "second chance": ("KiDispatchException", "DbgkForwardException", "KeWaitForSingleObject"),
    # Stand-ins: what these two do in the kernel before they wait is not what their threads are about.
    "NtWaitForAlertByThreadId": ("NtWaitForSingleObject", "KeWaitForSingleObject"),
    "NtRaiseException": ("NtWaitForSingleObject", "KeWaitForSingleObject"),
    "NtDelayExecution": ("NtDelayExecution", "KeDelayExecutionThread"),
    "NtWaitForWorkViaWorkerFactory": ("NtWaitForWorkViaWorkerFactory", "IoRemoveIoCompletion", "KeRemoveQueueEx"),
}


@dataclass
class Kernel:
    """The image of nt, and a place for each thread's kernel stack."""

    next_stack: int = STACKS
    code: int = 0xC0000005
    """What exception the threads have that wait for a debugger or the error port."""
    record: int = 0
    """Where the last exception's record is on its kernel stack."""

    def __post_init__(self) -> None:
        """Build code and unwind data."""
        self.image = ImageBuilder("ntoskrnl.exe", BASE, 0x5F00, machine=AMD64, has_isf=True, timestamp=0x9F7C2A41)
        chkstk = add_chkstk(self.image)
        self.functions = {name: function.put(self.image, chkstk) for name, function in _functions().items()}
        # swapgs and so on at the entry; at the return address before: call r10
        code = b"\x0f\x01\xf8".ljust(_RETURN - _SYSTEM_CALL - 3, b"\x90") + b"\x41\xff\xd2\x90\x0f\x0b"
        Function(
            "KiSystemCall64", _SYSTEM_CALL, code=code, codes=_entry_codes(((3, 0x140), (7, 0x148), (6, 0x150)))
        ).put(self.image)
        self.image.name_function("KiSystemServiceCopyEnd", _SERVICE_END)
        code = b"\x55".ljust(_FAULT_RETURN - _PAGE_FAULT - 2, b"\x90") + b"\xff\xd0\x90\x0f\x0b"
        Function("KiPageFault", _PAGE_FAULT, code=code, codes=_entry_codes()).put(self.image)

    def wait(self, thread: Thread, service: str, user: Chain) -> tuple[TruthFrame, ...]:
        """Give `thread`, whose user half waits in `service`, its kernel stack; return the frames on it.

        For "page fault" the user half was interrupted: it touched a page that has to be read. For "exception" its
        instruction faulted, and the debugger or the error port was told of that. For "second chance" they were told by
        NtRaiseException, which has put the registers of the fault into the trap frame.
        """
        returns_to = _FAULT_RETURN if service in {"page fault", "exception"} else _RETURN
        base = self.next_stack + STACK_SIZE
        self.next_stack += STACK_SIZE + 0x1000
        stack = Stack(base - STACK_SIZE, base)
        trap_frame = base - TRAP_FRAME_SIZE
        registers = {**user.registers, "rbp": trap_frame + 0x80}
        below = trap_frame - _ARGUMENTS
        chain = Chain(stack, below - 8, returns_to, **registers)
        for name in (*_WAITS[service], "KiCommitThreadWait", "KiSwapThread", "KiSwapContext"):
            chain.enter(self.functions[name])
            if name == "KiDispatchException":
                self.record = chain.rsp + 0x40
                ip = user.placed[-1].registers["rip"]
                stack.at(self.record).raw(record_x64(self.code, 0, ip, (0, 0x18)))
        swap = self.functions["SwapContext"]
        chain.enter(swap, ip=swap.start + 0x40)
        chain.placed.pop()  # the switch frame is where the walk begins, not a frame
        thread.kernel_stack_base, thread.kernel_stack_limit = base, stack.limit
        thread.kernel_stack_pointer = chain.return_slot - (SWITCH_FRAME_SIZE - 8)
        thread.trap_frame, thread.kernel_stack = trap_frame, stack.pieces()
        names = Images([self.image])
        entry = TruthFrame(
            returns_to, below, user.placed[-1].registers["rip"], None, names.name(returns_to),
            {**registers, "rsp": below, "rip": returns_to},
        )  # fmt: skip
        frames = (*chain.frames(names), entry)
        return tuple(replace(frame, symbol=frame.symbol.replace("ntoskrnl!", "nt!")) for frame in frames)


def _entry_codes(saves: tuple[tuple[int, int], ...] = ()) -> bytes:
    """Return the UNWIND_INFO of an entry from user mode: the trap frame, with an error code, rbp 0x80 bytes into it.

    `saves` gives the numbers of the registers that it keeps there besides, and their offsets from the trap frame.
    """
    codes = [(0, PUSH_MACHFRAME | 1 << 4, ()), (0, PUSH_NONVOL | 5 << 4, ()), (0, ALLOC_LARGE, (0x158 // 8,))]
    codes += [(0x20, SET_FPREG, ())]
    codes += [(0x20, SAVE_NONVOL | number << 4, (offset // 8,)) for number, offset in saves]
    return unwind_info(1, 0x20, 5 | 8 << 4, codes)
