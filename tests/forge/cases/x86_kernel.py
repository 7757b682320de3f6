# SPDX-License-Identifier: Apache-2.0
"""The kernel half of waiting threads of a Server 2003 x86 system: functions of nt, and the stacks they leave."""

from __future__ import annotations

from dataclasses import dataclass

from tests.forge.chains_x86 import Chain, Images
from tests.forge.code import dword
from tests.forge.describe import Machine, Paging, Process
from tests.forge.functions_x86 import Call, Function, ebp_frame, frameless, raw
from tests.forge.images import ImageBuilder
from tests.forge.runtime_x86 import add_runtime
from tests.forge.stacks import Stack
from tests.forge.truth import TruthFrame

KERNEL_BASE = 0x80800000
TRAP_FRAME_SIZE, NPX_AREA_SIZE = 0x8C, 0x210
SYSTEM_SERVICE_RETURN = 0x808897BC
SWAP_CONTEXT = 0x8088DBA0
OBJECT = 0x89AE3E18
"""What single waits wait for."""
ALL = ("ebx", "esi", "edi")


@dataclass(frozen=True)
class KernelStack:
    """A thread's kernel stack: what KTHREAD says of it, its words, and its frames."""

    base: int
    limit: int
    pointer: int
    trap_frame: int
    pieces: dict[int, bytes]
    frames: tuple[TruthFrame, ...]


class Kernel:
    """The image of nt with the functions that threads wait in."""

    def __init__(self) -> None:
        """Make the image; functions are put in as they are defined below."""
        self.fault = (0xC0000005, 0)
        """Code and place of the exception of the next thread that waits for its second chance."""
        name = "ntkrpamp.exe"
        self.image = ImageBuilder(name, KERNEL_BASE, 0x13A000, 0x4000, 0x4000, has_isf=True)
        runtime = add_runtime(self.image)
        self.functions = {
            function.name: function
            for function in (
                Function(
                    "KiFastCallEntry",
                    0x808896C0,
                    frameless(),
                    (
                        # mov edi,esp; call ebx; then mov esp,ebp, ebp being the trap frame
                        Call(SYSTEM_SERVICE_RETURN, 0, code=b"\x8b\xfc", via=b"\xff\xd3", after=b"\x8b\xe5"),
                    ),
                ),
                Function(
                    "NtWaitForMultipleObjects",
                    0x80939002,
                    runtime.seh_frame(0x118),
                    (Call(0x809390CA, 0x80938D66, (2, 0xB8FDEC1C, 1, 1, 1, 0xB8FDEC14), 0x18),),
                    0x14,
                ),
                Function(
                    "ObpWaitForMultipleObjects",
                    0x80938D66,
                    runtime.seh_frame(0x238),
                    (
                        Call(
                            0x80938F68,
                            0x808290E2,
                            (2, 0xB8FDEAAC, 1, 6, 1, 1, 0xB8FDEC14, 0xB8FDEA4C),
                            0x20,
                            sets={"ebx": 0, "esi": 2, "edi": 0x89E3D418},
                        ),
                    ),
                    0x18,
                ),
                Function(
                    "KeWaitForMultipleObjects",
                    0x808290E2,
                    ebp_frame(0x20, ALL),
                    (Call(0x808294B9, 0x808331A0, sets={"esi": 0xF77275C8, "ebx": 1}),),
                    0x20,
                ),
                Function(
                    "NtWaitForSingleObject",
                    0x80938B1C,
                    runtime.seh_frame(0x20),
                    (
                        # KeWaitForSingleObject(esi, UserRequest, UserMode, not alertable, timeout)
                        Call(
                            0x80938BB6,
                            0x80828D3C,
                            pops=0x14,
                            after=b"",
                            sets={"esi": OBJECT},
                            code=b"\xbe" + dword(OBJECT) + bytes.fromhex("8d45d8506a006a016a0656"),
                        ),
                    ),
                    0xC,
                ),
                Function(
                    "KeWaitForSingleObject", 0x80828D3C, ebp_frame(0x14, ALL), (Call(0x80828FD4, 0x808331A0),), 0x14
                ),
                Function(
                    "NtDelayExecution",
                    0x80931D3A,
                    runtime.seh_frame(0x1C),
                    (
                        # KeDelayExecutionThread(UserMode, alertable, interval)
                        Call(0x80931DDB, 0x80829C6E, pops=0xC, after=b"", code=bytes.fromhex("8d45d8506a016a01")),
                    ),
                    8,
                ),
                Function(
                    "KeDelayExecutionThread", 0x80829C6E, ebp_frame(0x18, ALL), (Call(0x80829E02, 0x808331A0),), 0xC
                ),
                Function(
                    "KiDispatchException",
                    0x80834000,
                    ebp_frame(0x3A0, ALL),
                    (Call(0x80834120, 0x80834800, (0, 1, 1), 12),),
                ),
                Function("DbgkForwardException", 0x80834800, ebp_frame(0x90, ALL), (Call(0x808348B0, 0x80828D3C),), 12),
                Function("KiSwapThread", 0x808331A0, frameless(0x1C, ALL), (Call(0x80833485, SWAP_CONTEXT),)),
                Function(
                    "KiSwapContext",
                    SWAP_CONTEXT,
                    raw(
                        0x10,
                        {-4: "ebx", -8: "esi", -12: "edi", -16: "ebp"},
                        "83ec10895c240c89742408897c2404892c24",
                        "8b2c248b7c24048b7424088b5c240c83c410",
                    ),
                    (Call(SWAP_CONTEXT + 0x26, SWAP_CONTEXT + 0x80),),
                ),
                Function("SwapContext", SWAP_CONTEXT + 0x80, frameless(8)),
            )
        }
        for function in self.functions.values():
            self.image.name_function(function.name, self.image.code(function.start, function.emit()))

    def symbols(self) -> dict[str, int]:
        """Return the functions by RVA."""
        return self.image.rvas()

    def machine(self, processes: list[Process], processors: int = 1) -> Machine:
        """Return Server 2003 x86 with this kernel."""
        return Machine(
            Paging.PAE,
            (5, 2, 3790),
            processes,
            processors=processors,
            kernel_base=self.image.base,
            kernel_image=self.image.build(),
            kernel_symbols=self.symbols(),
        )

    def wait(self, base: int, service: str, user: Chain, size: int = 0x3000) -> KernelStack:
        """Lay out the kernel stack of a thread that waits in `service`, which `user` called."""
        limit = base - size
        stack = Stack(limit, base)
        trap_frame = base - NPX_AREA_SIZE - TRAP_FRAME_SIZE
        arguments = _WAITS[service][0]
        slot = trap_frame - 4 * arguments - 4
        last = user.placed[-1]  # KiFastSystemCallRet: its caller's stub, then the arguments
        first = last.return_slot + 8
        stack.at(slot + 4).d32(*(user.stack.word(first + 4 * index) or 0 for index in range(arguments)))
        # The trap frame begins with DbgEbp and DbgEip: after the arguments of a service that has few.
        stack.at(trap_frame).d32(last.registers["ebp"], last.registers["eip"])
        chain = Chain(stack, slot, SYSTEM_SERVICE_RETURN, ebp=trap_frame)
        for name, args in _WAITS[service][1]:
            chain.enter(self.functions[name], args=args)
            if name == "KiDispatchException":
                code, eip = self.fault
                stack.at(chain.placed[-1].registers["ebp"] - 0x200).d32(code, 0, 0, eip, 2, 0, 0x18)
        pointer = self.switch_out(chain)
        entry = TruthFrame(
            SYSTEM_SERVICE_RETURN,
            # WinDbg prints the system service's own ChildEBP again, and the user's eip.
            slot - 4,
            last.registers["eip"],
            tuple(stack.word(slot + 4 * index) or 0 for index in (1, 2, 3)),
            self.image.nearest(SYSTEM_SERVICE_RETURN).replace("ntkrpamp!", "nt!"),
        )
        named = tuple(
            TruthFrame(f.ip, f.child_sp, f.return_address, f.args, f.symbol.replace("ntkrpamp!", "nt!"), f.registers)
            for f in chain.frames(Images([self.image]))
        )
        return KernelStack(base, limit, pointer, trap_frame, stack.pieces(), (*named, entry))

    def switch_out(self, chain: Chain) -> int:
        """Have a kernel chain give up the processor, in KiSwapContext; return KTHREAD.KernelStack."""
        swap = self.functions["KiSwapContext"]
        chain.enter(swap, ip=swap.start + 0x26)
        pointer = chain.placed[-1].registers["esp"] - 12
        # KSWITCHFRAME: ExceptionList, ApcBypassDisable, RetAddr
        chain.stack.at(pointer).d32(chain.seh, 0, swap.start + 0x26)
        return pointer


# By system service: how many arguments it has, then what runs below it and the words that are passed on.
_WAITS: dict[str, tuple[int, list[tuple[str, tuple]]]] = {
    "NtWaitForMultipleObjects": (
        5,
        [
            ("NtWaitForMultipleObjects", ()),
            ("ObpWaitForMultipleObjects", ()),
            ("KeWaitForMultipleObjects", ()),
            ("KiSwapThread", ()),
        ],
    ),
    "NtWaitForSingleObject": (
        3,
        [
            ("NtWaitForSingleObject", (OBJECT, 6, 1, 0, lambda ebp: ebp - 0x28)),
            ("KeWaitForSingleObject", ()),
            ("KiSwapThread", ()),
        ],
    ),
    # A stand-in: what it does in the kernel before it waits is not what its threads are about.
    "NtRaiseException": (
        3,
        [
            ("NtWaitForSingleObject", (OBJECT, 6, 1, 0, lambda ebp: ebp - 0x28)),
            ("KeWaitForSingleObject", ()),
            ("KiSwapThread", ()),
        ],
    ),
    # NtRaiseException, which has put the registers of the exception into the trap frame.
    "second chance": (
        3,
        [
            ("KiDispatchException", ()),
            ("DbgkForwardException", (0, 1, 1)),
            ("KeWaitForSingleObject", ()),
            ("KiSwapThread", ()),
        ],
    ),
    "NtDelayExecution": (
        2,
        [
            ("NtDelayExecution", (1, 1, lambda ebp: ebp - 0x28)),
            ("KeDelayExecutionThread", ()),
            ("KiSwapThread", ()),
        ],
    ),
}
