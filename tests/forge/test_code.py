# SPDX-License-Identifier: Apache-2.0
"""The forged code runs: an emulated processor, put at a frame's ip with its registers, arrives at the next frame.

So the code, the stack and the truth are of one mind by the judgement of something that knows nothing of any of them.
"""

from __future__ import annotations

import itertools

import capstone
import lief
import pytest
import unicorn
from unicorn import x86_const as uc_regs

from tests.forge.cases import Case, builders, ftp_stack
from tests.forge.cases.ftp_images import Library
from tests.forge.cases.kernel_x64 import Kernel
from tests.forge.cases.service_code import Program
from tests.forge.cases.windows_x64 import System
from tests.forge.code import REGISTERS_64
from tests.forge.describe import Process
from tests.forge.truth import TruthFrame

X86_ALL = ("ebx", "esi", "edi", "ebp", "esp")
X64_ALL = ("rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15", "rsp")
FS_BASE, GS_BASE = 0x10000, 0x20000
BOUNDARIES = ("KiFastCallEntry", "KiSystemServiceCopyEnd", "KiUserExceptionDispatch")
CASES = ("ftp-2003", "service-x64", "quiet-x86", "quiet")


def register(name: str) -> int:
    return getattr(uc_regs, f"UC_X86_REG_{name.upper()}")


def emulator(case: Case, process: Process) -> unicorn.Uc:
    mode = unicorn.UC_MODE_64 if case.truth.arch == "x64" else unicorn.UC_MODE_32
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, mode)
    regions = [(region.base, region.data) for region in process.regions]
    if case.machine.kernel_image is not None:
        regions.append((case.machine.kernel_base, case.machine.kernel_image))
        for thread in process.threads:
            stack = bytearray(thread.kernel_stack_base - thread.kernel_stack_limit)
            for at, data in thread.kernel_stack.items():
                stack[at - thread.kernel_stack_limit : at - thread.kernel_stack_limit + len(data)] = data
            regions.append((thread.kernel_stack_limit, bytes(stack)))
    for base, data in regions:
        put(uc, base, data)
    if case.truth.arch == "x64":
        reach_kernel(uc)
    if case.truth.arch == "x86":
        set_fs_base(uc)
    return uc


PHYSICAL = (1 << 47) - 1


def put(uc: unicorn.Uc, base: int, data: bytes) -> None:
    """Put bytes at an address; those of the kernel's half, which are beyond physical memory, are with a bit less."""
    uc.mem_map(base & PHYSICAL, (len(data) + 0xFFF) & ~0xFFF)
    uc.mem_write(base & PHYSICAL, data)


def reach_kernel(uc: unicorn.Uc) -> None:
    """Translate addresses to where `put` put what they hold."""

    def fill(_uc, address, _access, entry, _data):
        entry.paddr = address & PHYSICAL & ~0xFFF
        entry.perms = unicorn.UC_PROT_ALL
        return True

    uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
    uc.hook_add(unicorn.UC_HOOK_TLB_FILL, fill)


def set_fs_base(uc: unicorn.Uc) -> None:
    """Let fs: be a page at FS_BASE, through a descriptor table."""
    table = 0x8000
    uc.mem_map(table, 0x1000)
    uc.mem_map(FS_BASE, 0x1000)
    flat = 0x00CF9A000000FFFF
    data = 0x00CF92000000FFFF
    fs = 0x0040920000000FFF | (FS_BASE & 0xFFFFFF) << 16
    for index, descriptor in enumerate((0, flat, data, fs)):
        uc.mem_write(table + 8 * index, descriptor.to_bytes(8, "little"))
    uc.reg_write(uc_regs.UC_X86_REG_GDTR, (0, table, 0x1F, 0))
    uc.reg_write(uc_regs.UC_X86_REG_CS, 1 << 3)
    for name in ("ds", "es", "ss"):
        uc.reg_write(register(name), 2 << 3)
    uc.reg_write(uc_regs.UC_X86_REG_FS, 3 << 3)


def stacks(case: Case) -> list[tuple[Process, str, tuple[TruthFrame, ...]]]:
    processes = {process.pid: process for process in case.machine.processes}
    found = [(processes[thread.pid], f"{thread.tid:#x}", thread.thread_stack) for thread in case.truth.stuck]
    for key, frames in case.truth.stacks.items():
        pid, tid = map(int, key.split(":"))
        found.append((processes[pid], f"{tid:#x}", frames))
    return found


def is_system_boundary(frame: TruthFrame) -> bool:
    """Such a frame was not called: the trap frame or the machine frame says what is outside of it."""
    return any(name in frame.symbol for name in BOUNDARIES)


@pytest.mark.parametrize("name", CASES)
def test_running_on_from_a_frame_leads_to_the_next_one(name: str) -> None:
    case = builders()[name][0]()
    names = X86_ALL if case.truth.arch == "x86" else X64_ALL
    ip = "eip" if case.truth.arch == "x86" else "rip"
    steps = 0
    emulators = {process.pid: emulator(case, process) for process in case.machine.processes}
    for process, tid, frames in stacks(case):
        uc = emulators[process.pid]
        for frame, outer in itertools.pairwise(frames):
            if is_system_boundary(frame) or not outer.registers:
                continue
            for register_name in names:
                uc.reg_write(register(register_name), frame.registers[register_name])
            if "ExecuteHandler2" in frame.symbol:  # it finds its frame again through fs:[0]
                uc.mem_write(FS_BASE, (frame.child_sp - 0xC).to_bytes(4, "little"))
            # What the fault could not read is there this time.
            uc.reg_write(uc_regs.UC_X86_REG_RCX, frame.registers[names[-1]])
            uc.ctl_flush_tb()  # blocks translated before know nothing of the new end
            uc.emu_start(frame.ip, frame.return_address, count=200)
            where = f"{name} thread {tid} {frame.symbol} -> {outer.symbol}"
            assert uc.reg_read(register(ip)) == outer.ip == frame.return_address, where
            got = {register_name: uc.reg_read(register(register_name)) for register_name in names}
            assert got == {key: outer.registers[key] for key in names}, where
            steps += 1
    assert steps > 20


# What a callee or a later step wrote over words that the code left: the stack limit over RtlDispatchException's
# argument, the address of the raise into the record by RtlRaiseException. The last two are locals of functions that
# called _chkstk, which had used them before.
OVERWRITTEN = {0x045BA880, 0x045BAB74, 0x045BF9A0, 0x045BCC58}


def test_running_a_function_from_its_start_leaves_the_stack_of_the_transcript() -> None:
    case = builders()["ftp-2003"][0]()
    process = next(process for process in case.machine.processes if process.pid == 0xA04)
    library = Library()
    chain = ftp_stack.stuck_stack(library)[1]
    memory = next(region for region in process.regions if region.base == chain.stack.limit)
    uc = emulator(case, process)
    shared = 0x7FFE0000  # KUSER_SHARED_DATA.SystemCall
    uc.mem_map(shared, 0x1000)
    uc.mem_write(shared + 0x300, (0x7C8285E8).to_bytes(4, "little"))
    for before, placed, inner in zip([None, *chain.placed], chain.placed, chain.placed[1:], strict=False):
        uc.mem_write(memory.base, memory.data)
        uc.mem_write(FS_BASE, placed.seh.to_bytes(4, "little"))
        entry = {**dict.fromkeys(X86_ALL, 0), **(before.registers if before else {}), "esp": placed.return_slot}
        for name in X86_ALL:
            uc.reg_write(register(name), entry[name])
        # Who enters ExecuteHandler says in edx who handles exceptions of handlers.
        uc.reg_write(uc_regs.UC_X86_REG_EDX, library.runtimes["ntdll"].handler)
        stack = bytes(uc.mem_read(inner.return_slot, placed.return_slot + 4 - inner.return_slot))
        target = inner.function.start
        if "KiFastSystemCallRet" in inner.function.name:
            target = 0x7C8285E8  # its caller enters KiFastSystemCall, which comes back there
        uc.ctl_flush_tb()
        uc.emu_start(placed.function.start, target, count=4000)
        where = placed.function.name
        assert uc.reg_read(uc_regs.UC_X86_REG_EIP) == target, where
        assert uc.reg_read(uc_regs.UC_X86_REG_ESP) == inner.return_slot, where
        for name in ("ebx", "esi", "edi", "ebp"):
            assert uc.reg_read(register(name)) == placed.registers[name], f"{where} {name}"
        now = bytes(uc.mem_read(inner.return_slot, len(stack)))
        changed = {inner.return_slot + i for i in range(0, len(stack), 4) if stack[i : i + 4] != now[i : i + 4]}
        assert changed <= OVERWRITTEN, f"{where} {[hex(at) for at in changed]}"


def with_exceptions() -> lief.PE.ParserConfig:
    config = lief.PE.ParserConfig()
    config.parse_exceptions = True
    return config


ARGUMENTS = range(0x1000, 0x1000 + 16 * 0x1111, 0x1111)
STACK_TOP = 0x7_0000_0000


def after_prologue(image: bytes, base: int, start: int, size: int) -> tuple[unicorn.Uc, dict[str, int]]:
    """Run a prologue with a value of its own in every register; return the machine and those values."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    put(uc, base, image)
    reach_kernel(uc)
    uc.mem_map(STACK_TOP - 0x20000, 0x21000)
    initial = dict(zip(REGISTERS_64, ARGUMENTS, strict=True)) | {"rsp": STACK_TOP - 8}
    for name, value in initial.items():
        uc.reg_write(register(name), value)
    for number in range(16):
        uc.reg_write(register(f"xmm{number}"), 0x5A5A0000 + number)
    uc.emu_start(start, start + size, count=40)
    assert uc.reg_read(uc_regs.UC_X86_REG_RIP) == start + size
    return uc, initial


def undo(uc: unicorn.Uc, initial: dict[str, int], codes: list, frame_offset: int, frame_register: int) -> int:
    """Check each unwind code against what the prologue did; return rsp as the codes have it at entry."""

    def word(address: int) -> int:
        return int.from_bytes(uc.mem_read(address, 8), "little")

    here = base = uc.reg_read(uc_regs.UC_X86_REG_RSP)
    for code in codes:
        match type(code).__name__:
            case "Epilog":
                pass
            case "PushNonVol":
                assert word(here) == initial[code.reg.name.lower()]
                here += 8
            case "Alloc":
                here += code.size
            case "SetFPReg":
                here = base = uc.reg_read(register(REGISTERS_64[frame_register])) - frame_offset
            case "SaveNonVolatile":
                assert word(base + code.offset) == initial[code.reg.name.lower()]
            case "SaveXMM128":
                assert word(base + code.offset) == 0x5A5A0000 + code.num
            case other:
                pytest.fail(f"{other} is not checked")
    return here


@pytest.mark.parametrize("stem", ["ledgersvc", "ntdll", "KERNEL32", "KERNELBASE", "ucrtbase", "VCRUNTIME140", "nt"])
def test_unwind_codes_say_what_the_prologue_does(stem: str) -> None:
    system = System()
    images = {**system.images, "ledgersvc": Program("ledgersvc.exe", system).image, "nt": Kernel().image}
    image = images[stem]
    data = image.build()
    checked = 0
    parsed = lief.PE.parse(list(data), with_exceptions())
    for function in parsed.exceptions:
        info = function.unwind_info
        entry = data[image.runtime_function(image.base + function.rva_start) - image.base :]
        assert int.from_bytes(entry[:4], "little") == function.rva_start
        is_machine_frame = any(type(code).__name__ == "PushMachFrame" for code in info.opcodes)
        if is_machine_frame or info.has(lief.PE.RuntimeFunctionX64.UNWIND_FLAGS.CHAIN_INFO):
            continue
        uc, initial = after_prologue(data, image.base, image.base + function.rva_start, info.sizeof_prologue)
        frame = data[function.unwind_rva + 3]
        assert undo(uc, initial, list(info.opcodes), 16 * (frame >> 4), frame & 15) == initial["rsp"]
        checked += 1
    assert checked


def test_the_dispatchers_unwind_codes_are_the_real_ones() -> None:
    parsed = lief.PE.parse(list(System().images["ntdll"].build()), with_exceptions())
    (info,) = (
        function.unwind_info
        for function in parsed.exceptions
        if any(type(code).__name__ == "PushMachFrame" for code in function.unwind_info.opcodes)
    )
    assert (info.version, info.sizeof_prologue, info.frame_reg) == (2, 0, 0)
    saved = {c.reg.name.lower(): c.offset for c in info.opcodes if type(c).__name__ == "SaveNonVolatile"}
    vectors = {c.num: c.offset for c in info.opcodes if type(c).__name__ == "SaveXMM128"}
    assert saved == {
        "rbx": 0x90,
        "rbp": 0xA0,
        "rsi": 0xA8,
        "rdi": 0xB0,
        "r12": 0xD8,
        "r13": 0xE0,
        "r14": 0xE8,
        "r15": 0xF0,
    }
    assert vectors == {number: 0x200 + 16 * (number - 6) for number in range(6, 16)}
    assert [c.size for c in info.opcodes if type(c).__name__ == "Alloc"] == [0x590]


@pytest.mark.parametrize("name", ["ftp-2003", "service-x64"])
def test_every_return_address_follows_a_call(name: str) -> None:
    case = builders()[name][0]()
    mode = capstone.CS_MODE_64 if case.truth.arch == "x64" else capstone.CS_MODE_32
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, mode)
    for process, _, frames in stacks(case):
        uc = emulator(case, process)
        for frame in frames:
            if not frame.return_address or is_system_boundary(frame):
                continue
            window = bytes(uc.mem_read((frame.return_address - 8) & PHYSICAL, 8))
            calls = [
                instruction
                for size in range(2, 8)
                for instruction in disassembler.disasm(window[-size:], frame.return_address - size, 1)
                if instruction.mnemonic == "call" and instruction.size == size
            ]
            assert calls, f"{frame.symbol} returns to {frame.return_address:#x}"
