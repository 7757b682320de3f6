# SPDX-License-Identifier: Apache-2.0
"""Finds the callers of x64 frames, by unwind data if there is any.

A frame has either made a call or was interrupted. The first frame was interrupted, and so was the next frame after a
machine frame. An interrupted frame may be anywhere in its function: in the prologue, in an epilogue, in a leaf
function, or outside any code after a jump through a bad pointer. The function of a frame that has made a call is the
function that holds the call instruction. The return address may be in the next function, because a call that never
returns may be the last instruction of its function.
"""

from __future__ import annotations

from dataclasses import replace

from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import SP, X64, Registers
from throwstack.core.stop import Stop, unreadable
from throwstack.images.image import ImageMap
from throwstack.unwind.after_call import call_targets, is_after_call
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.kept_frames import MOST_FRAMES, Depth
from throwstack.unwind.walk import Step, steps, walk
from throwstack.unwind.x64.follow_to_return import plan_to_return
from throwstack.unwind.x64.functions import Functions
from throwstack.unwind.x64.guessed_caller import GuessedCaller, by_frame_pointer, by_scan
from throwstack.unwind.x64.inverted_table import InvertedTable
from throwstack.unwind.x64.ntdll_functions import NtdllFunctions
from throwstack.unwind.x64.plan_cache import PlanCache
from throwstack.unwind.x64.unwind_plan import LEAF, UnwindPlan

_MACHINE_FRAME_RSP = 24
_ANYWHERE = StackBounds(0, 1 << 64, is_recorded=False)
_NEAR = 1 << 24


class Unwinder:
    """Walks the x64 stacks of one address space. Decoded unwind data is kept, so use one unwinder for all threads."""

    __slots__ = ("_depth", "_functions", "_images", "_limit", "_memory", "_ntdll", "_outside", "_plans")

    def __init__(
        self,
        images: ImageMap,
        *,
        frame_limit: int = MOST_FRAMES,
        inverted: InvertedTable | None = None,
        outside: CodeOutside | None = None,
    ) -> None:
        """`images` are the modules of the address space, and have its memory.

        A walk goes through at most `frame_limit` frames. `inverted` is the loader's list of function tables, used for
        images whose headers cannot be read. `outside` is what is known of code outside the images.
        """
        self._outside = outside or CodeOutside(images)
        self._images = images
        self._memory = images.memory
        self._limit = frame_limit
        self._depth = Depth(frame_limit)
        self._functions = Functions(images, inverted)
        self._plans = PlanCache(images, self._functions)
        self._ntdll = NtdllFunctions(images, self._functions)

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        """Walk outwards from interrupted code whose registers are `registers`; `trust` says how they were found.

        A stack pointer outside `stack` belongs to a fiber, or to another stack that the thread has switched to. The
        walk then goes on as long as memory is readable there, and the first frame's note says that the stack pointer
        was outside.
        """
        if registers.gpr[SP] is None:
            return Walk((), End.UNKNOWN_REGISTER, X64.register_names[SP])
        note = ""
        if not stack.contains(registers.sp):
            stack = _ANYWHERE
            note = "stack pointer outside the thread's stack"
        first = Step(registers, None, trust, is_interrupted=True, note=note)
        found = walk(self, first, stack, self._depth.limit)
        self._depth.spend(found)
        return found

    def step(self, at: Step, stack: StackBounds) -> Step | Stop:
        """Return the caller of the frame `at`, or a `Stop` that says why none was found.

        The stack pointer of a caller that was interrupted can be outside `stack`, as a machine frame may lead from the
        kernel's stack to the user's. This method does not check that; `throwstack.unwind.walk.walk` does.
        """
        registers, is_interrupted = at.registers, at.is_interrupted
        plan = self._plans.interrupted(registers.ip) if is_interrupted else self._plans.called(registers.ip)
        if plan is None:
            return self._guess(registers, stack, is_interrupted=is_interrupted)
        if isinstance(plan, Stop):
            return plan
        interrupted = None if is_interrupted else self._ntdll.interrupted(registers, stack)
        step = self._apply(plan, registers, stack, interrupted)
        if plan is LEAF and (self._is_no_leaf(step) or (isinstance(step, Stop) and step.return_address == 0)):
            return self._without_entry(registers, stack)
        return step

    @staticmethod
    def frame(at: Step, return_address: int | None, slot: int | None) -> Frame:
        """Return the `Frame` of `at`, given its return address and the stack slot that holds the return address."""
        registers = at.registers
        return Frame(registers, registers.sp, return_address, slot, at.trust, at.note, at.is_interrupted)

    def _without_entry(self, registers: Registers, stack: StackBounds) -> Step | Stop:
        """Find the caller of interrupted code that has no unwind data although it has moved the stack pointer."""
        plan = plan_to_return(self._functions, registers.ip)
        step = None if plan is None else self._apply(plan, registers, stack)
        if step is None or self._is_no_leaf(step):
            return self._guess(registers, stack, is_interrupted=True)
        return step if isinstance(step, Stop) else replace(step, trust=Trust.PROLOGUE, note="no unwind data")

    def step_beyond(self, registers: Registers, stack: StackBounds, address: int) -> Step | Stop:
        """Walk from a frame that has made a call to the first frame whose return address was at or above `address`.

        Given the registers of a KSWITCHFRAME and the address of the thread's KTRAP_FRAME, the result has the user-mode
        registers. The registers that the trap frame does not hold (r12 to r15) come from the kernel's frames. A `Stop`
        says why the walk ended before it got there.
        """
        first = Step(registers, None, Trust.CONTEXT)
        for outcome in steps(self, first, stack, self._limit):
            if isinstance(outcome, Stop) or (outcome.slot or 0) >= address:
                return outcome
        return Stop(End.FRAME_LIMIT, str(self._limit))

    def _is_no_leaf(self, step: Step | Stop) -> bool:
        """Say whether `step`, found by the rule for leaf functions, shows that the code is not a leaf function.

        That is so if the address it takes for the return address is not in code, or not after a call instruction.
        """
        if isinstance(step, Stop):
            return step.end is End.BAD_RETURN_ADDRESS
        return is_after_call(self._memory, step.registers.ip) is False

    def _apply(
        self, plan: UnwindPlan, registers: Registers, stack: StackBounds, interrupted: Registers | None = None
    ) -> Step | Stop:
        """Read the caller's registers from the stack slots that `plan` names, and return the caller.

        `registers` are those of the frame. If the frame is the exception dispatcher's, `interrupted` are the registers
        in the exception's CONTEXT, else None. If `plan` gives the same ip and sp as `interrupted`, the caller gets the
        registers of `interrupted`: they are complete, and the code at their ip was interrupted.
        """
        gpr, memory = registers.gpr, self._memory
        limit, last = stack.limit, stack.base - 8
        anchor, offset = plan.result
        start = gpr[anchor]
        if start is None:
            return Stop(End.UNKNOWN_REGISTER, f"{X64.register_names[anchor]} at {registers.ip:#x}")
        slot = start + offset
        if not limit <= slot <= last:
            return Stop(End.STACK_BOUND, f"return address would be at {slot:#x}")
        try:
            ip = memory.u64(slot)
            sp = memory.u64(slot + _MACHINE_FRAME_RSP) if plan.is_machine_frame else slot + 8
        except MemoryUnreadable as error:
            return unreadable(error.address, "return address")
        if interrupted is not None and (ip, sp) == (interrupted.ip, interrupted.sp):
            return Step(interrupted, slot, Trust.CFI, is_interrupted=True, note=plan.note)
        new: list[int | None] = [None] * 16
        new[3], new[5], new[6], new[7] = gpr[3], gpr[5], gpr[6], gpr[7]
        new[12:] = gpr[12:]
        for register, anchor, offset in plan.saves:
            start = gpr[anchor]
            value = None
            if start is not None and limit <= start + offset <= last:
                try:
                    value = memory.u64(start + offset)
                except MemoryUnreadable:
                    value = None
            new[register] = value
        new[SP] = sp
        caller = Registers(ip, tuple(new))
        return self._checked(Step(caller, slot, Trust.CFI, plan.is_machine_frame, plan.note), registers, stack)

    def _checked(self, step: Step, callee: Registers, stack: StackBounds) -> Step | Stop:
        """Return the caller `step`, or a `Stop` if the walk has to end.

        The walk ends if the stack pointer has not increased since the frame of `callee`, if that frame is the first of
        the thread, or if the caller's address is not in code.
        """
        ip, sp = step.registers.ip, step.registers.sp
        if sp <= callee.sp and stack.contains(sp):
            return Stop(End.NO_PROGRESS, f"from {callee.sp:#x} to {sp:#x}")
        if step.is_interrupted:
            return step
        if ip == 0:
            return Stop(End.THREAD_START, "return address 0", 0, step.slot)
        if self._ntdll.is_thread_start(callee.ip):
            return Stop(End.THREAD_START, "RtlUserThreadStart", ip, step.slot)
        plan = self._plans.called(ip)
        if isinstance(plan, Stop) and plan.end is End.BAD_RETURN_ADDRESS:
            return plan
        return step

    def _guess(self, registers: Registers, stack: StackBounds, *, is_interrupted: bool) -> Step | Stop:
        """Find the caller of code that no unwind data covers."""
        ip, memory = registers.ip, self._memory

        def is_return_address(address: int) -> bool:
            is_near = self._images.find(ip) is None and abs(address - ip) < _NEAR
            return (is_near or self._images.is_code(address - 1)) and bool(is_after_call(memory, address))

        if is_interrupted and not self._images.is_code(ip) and self._is_wild(registers):
            return self._wild_jump(registers, stack)
        guess: GuessedCaller | None = by_frame_pointer(registers, stack, memory, is_return_address)
        trust = Trust.FRAME_POINTER
        if guess is None:
            guess = by_scan(registers, stack, memory, is_return_address)
            trust = Trust.SCAN
        if guess is None:
            return Stop(End.NO_RETURN_ADDRESS, f"no unwind data covers {ip:#x}")
        return self._checked(Step(guess.registers, guess.slot, trust, note="no unwind data"), registers, stack)

    def _is_wild(self, registers: Registers) -> bool:
        """Say whether the thread has jumped to `registers.ip`, an address outside the images, through a bad pointer.

        That is so if the memory at ip is not readable. Readable memory can be generated code, or data to which a
        corrupt pointer led. Then the word on top of the stack, if it is the return address of a call, decides: if the
        target of that call, computed with the present registers, is exactly ip, no instruction has run since the call,
        and the pointer is taken for a bad one.
        """
        if not self._memory.is_readable(registers.ip):
            return True
        try:
            address = self._memory.u64(registers.sp)
        except MemoryUnreadable:
            return False
        return bool(is_after_call(self._memory, address)) and registers.ip in call_targets(
            self._memory, address, registers
        )

    def _wild_jump(self, registers: Registers, stack: StackBounds) -> Step | Stop:
        """Find the caller after a call of an address that is not code.

        The call has only pushed its return address, and no instruction has run since. So the return address is on top
        of the stack, and every nonvolatile register has the caller's value.
        """
        step = self._apply(LEAF, registers, stack)
        if isinstance(step, Stop):
            return step
        if not is_after_call(self._memory, step.registers.ip):
            return Stop(
                End.NO_RETURN_ADDRESS, f"{registers.ip:#x} is not code, and {step.registers.ip:#x} is not after a call"
            )
        return replace(
            step, trust=Trust.SCAN, note="call through a bad pointer: return address from the top of the stack"
        )
