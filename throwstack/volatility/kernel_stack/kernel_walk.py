# SPDX-License-Identifier: Apache-2.0
"""Walks the kernel frames of a thread, from where it was switched out to the trap frame saved when it left user mode.

The entry points of the kernel (system service, fault and interrupt handlers) save a KTRAP_FRAME. On x86 they set ebp to
its address; on x64 unwind data describes it. The frame of an entry point is shown as debuggers show it: its return
address is the interrupted ip, and on x86 it has the ChildEBP and the arguments of the service that it called. If kernel
code was interrupted (by a page fault or a device), the walk continues with the interrupted code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import BP, Arch, Registers
from throwstack.unwind import trace, x64, x86
from throwstack.unwind.target import Target
from throwstack.unwind.walk import Step, walk
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import take
from throwstack.volatility.objects.switch_frame import SwitchFrame
from throwstack.volatility.objects.trap_frame import USER_MODE, TrapFrameOffsets, general_registers

_FRAME_LIMIT = 512
_TRAP_LIMIT = 16
_KERNEL_CS = 8
_ARGUMENT_MARK = 0xBADB0D00
_USER_END = 1 << 47


@dataclass(frozen=True, slots=True)
class KernelSide:
    """A thread's kernel frames, innermost first.

    `reason` says why the frames end before the trap frame or the start of the thread. It is empty if they do not.
    """

    frames: tuple[Frame, ...]
    reason: str = ""


class KernelWalker:
    """Walks the kernel stacks of a machine."""

    def __init__(self, machine: Machine) -> None:
        """Take the layout of a trap frame and the memory to walk from `machine`."""
        self._machine = machine
        self._offsets = take(TrapFrameOffsets, machine.layout)
        self._registers = general_registers(machine.layout, Arch.X86)

    def walk(
        self, target: Target, start: SwitchFrame, bounds: StackBounds, trap_frame: int, *, is_interrupted: bool = False
    ) -> KernelSide:
        """Walk from `start` to the trap frame at `trap_frame`.

        `target` is the kernel as the thread's process sees it, and `bounds` are the bounds of the kernel stack.
        `trap_frame` is 0 for a thread that was never in user mode. `is_interrupted` says that the registers of `start`
        are those of a running thread, which may be at any instruction, and not those of a thread that has called the
        scheduler.
        """
        unwinder = target.unwinder
        if isinstance(unwinder, x64.Unwinder):
            return self._walk_x64(unwinder, start.registers, bounds, trap_frame, is_interrupted=is_interrupted)
        if isinstance(unwinder, x86.Unwinder):
            return self._walk_x86(unwinder, start, bounds, trap_frame)
        message = f"no walker of kernel stacks for {type(unwinder)}"
        raise TypeError(message)

    def _walk_x64(
        self,
        unwinder: x64.Unwinder,
        registers: Registers,
        bounds: StackBounds,
        trap_frame: int,
        *,
        is_interrupted: bool,
    ) -> KernelSide:
        first = Step(registers, None, Trust.CONTEXT, is_interrupted)
        found = walk(unwinder, first, bounds, _FRAME_LIMIT)
        last = found.frames[-1]
        leaves_stack = found.end is End.STACK_BOUND and last.return_slot is not None
        frames = tuple(self._entries_named(found.frames, leaves_stack=leaves_stack))
        if leaves_stack:
            is_user = last.return_address is not None and last.return_address < _USER_END
            return KernelSide(frames, "" if is_user else f"interrupted on another stack at {last.return_slot:#x}")
        is_whole = found.end is End.THREAD_START and not trap_frame
        return KernelSide(frames, "" if is_whole else found.end.in_words(found.detail))

    def _entries_named(self, frames: Sequence[Frame], *, leaves_stack: bool) -> Iterator[Frame]:
        """Yield the frames of an x64 kernel stack; a note on each entry point's frame says where its trap frame is.

        A frame belongs to an entry point if its caller is interrupted code. `leaves_stack` says that the caller of the
        last frame is interrupted code outside this stack (in user mode, as a rule).
        """
        for index, frame in enumerate(frames):
            is_last = index + 1 == len(frames)
            if not (leaves_stack if is_last else frames[index + 1].is_interrupted) or frame.return_slot is None:
                yield frame
                continue
            ip = self._offsets.ip
            where = "" if ip is None else f" at {frame.return_slot - ip:#x}"
            yield replace(frame, note=f"trap frame{where}")

    def _walk_x86(self, unwinder: x86.Unwinder, start: SwitchFrame, bounds: StackBounds, trap_frame: int) -> KernelSide:
        frames: list[Frame] = []
        registers, head = start.registers, start.exception_list
        for _ in range(_TRAP_LIMIT):
            found = unwinder.walk(registers, bounds, seh_head=head)
            cut = next(self._entries(found, trap_frame), None)
            if cut is None:
                frames += found.frames
                return KernelSide(tuple(frames), _reason(found, trap_frame))
            index, trap = cut
            if trace.is_on():
                outcome = f"trap frame at {trap:#x} instead of a caller"
                trace.step(found.frames[index].ip, "entry point of the kernel", outcome)
            entry = _entry_frame(found.frames, index, trap)
            frames += [*found.frames[:index], entry]
            interrupted = self._interrupted(trap)
            if interrupted is None:
                frames[-1] = replace(entry, return_address=self._user_ip(trap))
                return KernelSide(tuple(frames))
            frames[-1] = replace(entry, return_address=interrupted.ip)
            bounds, registers, head = StackBounds(trap, bounds.base), interrupted, None
            if len(frames) >= _FRAME_LIMIT:
                break
        return KernelSide(tuple(frames), f"{End.FRAME_LIMIT.value}: {len(frames)} frames")

    def _entries(self, walk: Walk, trap_frame: int) -> Iterator[tuple[int, int]]:
        """Yield (index of the frame, address of its trap frame) for each frame of an x86 entry point.

        The ebp of such a frame is the address of a trap frame further out on the stack. A service that does not use ebp
        leaves ebp unchanged. So if several consecutive frames have the same ebp, only the outermost of them is the
        frame of the entry point, and only that frame is yielded. `trap_frame` is the address of the thread's user-mode
        trap frame.
        """
        for index, frame in enumerate(walk.frames):
            bp = frame.registers.gpr[BP]
            if bp is None or bp < frame.sp or not (bp == trap_frame or self._is_trap_frame(bp)):
                continue
            following = walk.frames[index + 1] if index + 1 < len(walk.frames) else None
            if following is None or following.registers.gpr[BP] != bp or following.sp > bp:
                yield index, bp

    def _is_trap_frame(self, address: int) -> bool:
        """Say whether a trap frame is at `address`.

        A trap frame is recognized by the mark 0xBADB0D00 that Windows stores in it, and by a kernel-mode or user-mode
        code selector.
        """
        memory, mark, selector = self._machine.memory, self._offsets.argument_mark, self._offsets.cs
        try:
            if mark is None or selector is None or memory.u32(address + mark) != _ARGUMENT_MARK:
                return False
            cs = memory.u32(address + selector)
        except MemoryUnreadable:
            return False
        return cs == _KERNEL_CS or cs & USER_MODE == USER_MODE

    def _interrupted(self, trap: int) -> Registers | None:
        """Return the kernel registers in the x86 trap frame at `trap`, or None if user mode was interrupted.

        None is also returned if the frame cannot be read. If kernel mode was interrupted, the processor has pushed no
        stack pointer. The stack of the interrupted code then begins at the place of the member HardwareEsp.
        """
        memory, offsets = self._machine.memory, self._offsets
        try:
            if offsets.cs is None or offsets.ip is None or offsets.sp is None:
                return None
            if memory.u32(trap + offsets.cs) != _KERNEL_CS:
                return None
            values = {name: memory.u32(trap + at) for name, at in self._registers.items()}
            values |= {"esp": trap + offsets.sp, "eip": memory.u32(trap + offsets.ip)}
            return Registers.named(Arch.X86, values)
        except MemoryUnreadable:
            return None

    def _user_ip(self, trap: int) -> int | None:
        ip = self._offsets.ip
        try:
            return None if ip is None else self._machine.pointer(self._machine.memory, trap + ip)
        except MemoryUnreadable:
            return None


def _entry_frame(frames: tuple[Frame, ...], index: int, trap: int) -> Frame:
    """Return the frame of an entry point, with the ChildEBP and return slot of the frame that it called.

    The entry point has copied the arguments of that called frame. `index` is the index of the entry point's frame in
    `frames`, and `trap` is the address of its trap frame, which the frame's note names.
    """
    frame, note = frames[index], f"trap frame at {trap:#x}"
    if index == 0:
        return replace(frame, note=note, return_slot=None)
    inner = frames[index - 1]
    return replace(frame, child_sp=inner.child_sp, return_slot=inner.return_slot, note=note)


def _reason(walk: Walk, trap_frame: int) -> str:
    why = "" if walk.is_complete else walk.end.in_words(walk.detail)
    if trap_frame:
        end = f": {why}" if why else ""
        return f"the trap frame at {trap_frame:#x} was not reached{end}"
    return why
