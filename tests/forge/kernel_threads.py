# SPDX-License-Identifier: Apache-2.0
"""A thread in the kernel: ETHREAD, kernel stack, trap frame.

The trap frame of a system call is right below InitialStack on x64, and below the 0x210 bytes of floating-point state
on x86.
"""

from __future__ import annotations

from tests.forge.describe import Thread, ThreadState
from tests.forge.kernel_memory import KernelMemory, Pool
from tests.forge.layouts import Layout
from tests.forge.physical import PAGE
from tests.forge.structures import Structure, link

_FLOATING_POINT = 0x210
_STACK_SIZE = {True: 0x6000, False: 0x3000}
_SWITCHED_OUT = {True: 0x600, False: 0x400}
"""How far below InitialStack a thread's stack pointer is that has given up the processor, when a case doesn't say."""
_ARGUMENT_MARK = 0xBADB0D00
_THREAD_OBJECT = 6
_TRAP_NAMES = {"esp": "HardwareEsp", "ss": "HardwareSegSs", "eflags": "EFlags"}
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss")
_DEFAULTS = {
    True: {"cs": 0x33, "ss": 0x2B, "ds": 0x2B, "es": 0x2B, "fs": 0x53, "gs": 0x2B, "eflags": 0x246},
    False: {"cs": 0x1B, "ss": 0x23, "ds": 0x23, "es": 0x23, "fs": 0x3B, "gs": 0, "eflags": 0x246},
}


def trap_frame_address(layout: Layout, thread: Thread, initial_stack: int) -> int:
    """Return where a thread's trap frame is."""
    if thread.trap_frame is not None:
        return thread.trap_frame
    below = 0 if layout.is_64bit else _FLOATING_POINT
    return initial_stack - below - layout.size("_KTRAP_FRAME")


def write_thread(kernel: KernelMemory, process: Structure, pid: int, thread: Thread, created: int) -> Structure:
    """Write an ETHREAD and its kernel stack; the lists that it is on are its process's matter."""
    layout = kernel.layout
    address = thread.address or kernel.allocate(layout.size("_ETHREAD"), before=0x40)
    block = Structure(kernel, layout, "_ETHREAD", address)
    _write_identity(block, process, pid, thread, created)
    _write_scheduling(block, thread)
    base, limit, pointer = _stack(kernel, thread)
    block.put("Tcb.InitialStack", base)
    block.put_any(("Tcb.StackBase",), base)
    block.put("Tcb.StackLimit", limit)
    block.put("Tcb.KernelStack", pointer)
    for at in range(max(limit, pointer // PAGE * PAGE), base, PAGE):
        kernel.page(at)
    if thread.has_trap_frame:
        frame = trap_frame_address(layout, thread, base)
        block.put("Tcb.TrapFrame", frame)
        _write_trap_frame(kernel, frame, thread)
    for at, data in thread.kernel_stack.items():
        kernel.write(at, data)
    return block


def _write_identity(block: Structure, process: Structure, pid: int, thread: Thread, created: int) -> None:
    block.put("Tcb.Header.Type", _THREAD_OBJECT)
    block.put_any(("Tcb.Header.Size",), block.layout.size("_KTHREAD") // 4)
    for path in ("Tcb.Header.WaitListHead", "Tcb.MutantListHead", "IrpList"):
        link(block.memory, block.layout, [block.at(path)])
    block.put("Cid.UniqueProcess", pid)
    block.put("Cid.UniqueThread", thread.tid)
    for path in ("ThreadsProcess", "Tcb.Process", "Tcb.ApcState.Process"):
        block.put_any((path,), process.address)
    # XP keeps two flags in the low bits of the creation time.
    shift = 3 if block.has("NestedFaultCount") and block.at("NestedFaultCount") == block.at("CreateTime") else 0
    block.put("CreateTime", created << shift)
    block.put("StartAddress", thread.start_address)
    block.put("Win32StartAddress", thread.win32_start_address)


def _write_scheduling(block: Structure, thread: Thread) -> None:
    for path, value in {
        "Teb": thread.teb,
        "State": thread.state.value,
        "WaitReason": thread.wait_reason,
        "WaitMode": thread.wait_mode,
        "WaitTime": thread.wait_ticks,
        "Alertable": thread.alertable,
        "Priority": thread.priority,
        "BasePriority": thread.base_priority,
        "PreviousMode": 1,
        "KernelStackResident": 1,
        "Running": thread.state is ThreadState.RUNNING,
        "Win32Thread": thread.win32_thread,
        **thread.kthread,
    }.items():
        block.put_any((f"Tcb.{path}",), value)


def _stack(kernel: KernelMemory, thread: Thread) -> tuple[int, int, int]:
    """Return base, limit and stack pointer of the kernel stack, where the case leaves them open in a fresh range."""
    is_64bit = kernel.layout.is_64bit
    base, limit = thread.kernel_stack_base, thread.kernel_stack_limit
    if base is None:
        limit = kernel.allocate(_STACK_SIZE[is_64bit], Pool.STACKS, align=PAGE, before=PAGE)  # a guard page before it
        base = limit + _STACK_SIZE[is_64bit]
    if limit is None:
        limit = base - _STACK_SIZE[is_64bit]
    pointer = thread.kernel_stack_pointer
    return base, limit, base - _SWITCHED_OUT[is_64bit] if pointer is None else pointer


def _write_trap_frame(kernel: KernelMemory, address: int, thread: Thread) -> None:
    layout = kernel.layout
    frame = Structure(kernel, layout, "_KTRAP_FRAME", address)
    registers = _DEFAULTS[layout.is_64bit] | thread.registers
    for name, value in registers.items():
        member = _TRAP_NAMES.get(name) if not layout.is_64bit or name == "eflags" else None
        if member is None:
            member = f"Seg{name.capitalize()}" if name in _SEGMENTS else name.capitalize()
        frame.put_any((member,), value)
    if layout.is_64bit:
        frame.put_all(PreviousMode=1, ExceptionActive=thread.exception_active)
        return
    frame.put_all(
        DbgEbp=registers.get("ebp", 0),
        DbgEip=registers.get("eip", 0),
        DbgArgMark=_ARGUMENT_MARK,
        PreviousPreviousMode=1,
        ExceptionList=0xFFFFFFFF,
    )
