# SPDX-License-Identifier: Apache-2.0
"""Finds the callers of x64 frames, by unwind data if there is any.

A frame has either made a call or was interrupted. The first frame was interrupted, and so was the next frame after a
machine frame. An interrupted frame may be anywhere in its function: in the prologue, in an epilogue, in a leaf
function, or outside any code after a jump through a bad pointer. The function of a frame that has made a call is the
function that holds the call instruction. The return address may be in the next function, because a call that never
returns may be the last instruction of its function.

A thread may switch between stacks: a coroutine library runs a routine on another stack and comes back. A function that
does so keeps its own rsp in its frame register, so that its caller is on the first stack, above or below the other.
"""

from __future__ import annotations

from dataclasses import replace

from throwstack.core.frames import End, Frame, StackBounds, Trust, Walk
from throwstack.core.registers import SP, X64, Registers
from throwstack.core.stop import Stop
from throwstack.images.image import ImageMap
from throwstack.unwind import trace
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.kept_frames import MOST_FRAMES, Depth
from throwstack.unwind.thread_start import StackEnds, overwritten
from throwstack.unwind.walk import Step, steps, walk
from throwstack.unwind.x64.apply_plan import apply_plan
from throwstack.unwind.x64.faulting_return import as_faulted, faulted_caller
from throwstack.unwind.x64.functions import Functions
from throwstack.unwind.x64.inverted_table import InvertedTable
from throwstack.unwind.x64.ntdll_functions import NtdllFunctions, NtdllRole
from throwstack.unwind.x64.plan_cache import PlanCache
from throwstack.unwind.x64.traced import Traced
from throwstack.unwind.x64.unwind_plan import LEAF, UnwindPlan
from throwstack.unwind.x64.without_unwind_data import WithoutUnwindData

_ANYWHERE = StackBounds(0, 1 << 64, is_recorded=False)
_NO_DATA = "no unwind data"


class Unwinder:
    """Walks the x64 stacks of one address space. Decoded unwind data is kept, so use one unwinder for all threads."""

    __slots__ = ("_depth", "_ends", "_images", "_limit", "_memory", "_ntdll", "_outside", "_plans", "_without")

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
        self._memory = images.memory
        self._limit = frame_limit
        self._depth = Depth(frame_limit)
        self._images = images
        self._outside = outside = outside or CodeOutside(images)
        functions = Functions(images, inverted, outside)
        self._plans = PlanCache(images, functions, outside)
        self._ntdll = NtdllFunctions(images, functions)
        self._without = WithoutUnwindData(images, outside, functions)
        self._ends = StackEnds(images.memory, outside, X64.pointer_size, self._without.is_return_address)

    def walk(self, registers: Registers, stack: StackBounds, *, trust: Trust = Trust.CONTEXT) -> Walk:
        """Walk outwards from interrupted code whose registers are `registers`; `trust` says how they were found.

        A stack pointer outside `stack` belongs to a fiber, or to another stack that the thread has switched to. The
        walk then goes on as long as memory is readable there, and the first frame's note says that the stack pointer
        was outside.
        """
        if registers.gpr[SP] is None:
            return Walk((), End.UNKNOWN_REGISTER, X64.register_names[SP])
        note = "" if stack.contains(registers.sp) else "stack pointer outside the thread's stack"
        first = Step(registers, None, trust, is_interrupted=True, note=note)
        stepper = Traced(self, self.rule_of) if trace.is_on() else self
        found = walk(stepper, first, stack, self._depth.limit)
        self._depth.spend(found)
        return found

    def rule_of(self, at: Step) -> str:
        """Return the rule that is applied first to the frame `at`, in words for the trace."""
        ip = at.registers.ip
        plan = self._plans.interrupted(ip) if at.is_interrupted else self._plans.called(ip)
        if plan is None:
            return "no unwind data"
        return plan.end.in_words(plan.detail) if isinstance(plan, Stop) else plan.rule

    def step(self, at: Step, stack: StackBounds) -> Step | Stop:
        """Return the caller of the frame `at`, or a `Stop` that says why none was found.

        `stack` are the bounds of the thread's stack. A frame outside of them is on another stack, which ends where
        memory does. The stack pointer of a caller that was interrupted can be outside `stack` too, as a machine frame
        may lead from the kernel's stack to the user's. This method does not check that; `throwstack.unwind.walk.walk`
        does.
        """
        registers, is_interrupted = at.registers, at.is_interrupted
        bounds = stack if stack.limit <= (registers.gpr[SP] or 0) < stack.base else _ANYWHERE
        plan = self._plans.interrupted(registers.ip) if is_interrupted else self._plans.called(registers.ip)
        if plan is None:
            return self._without_data(registers, stack, bounds, is_interrupted=is_interrupted, why=_NO_DATA)
        if isinstance(plan, Stop):
            return self._beyond(plan, registers, stack, bounds, is_interrupted=is_interrupted)
        interrupted = None
        if self._ntdll.roles[registers.ip] is NtdllRole.DISPATCHER and not is_interrupted:
            interrupted = self._ntdll.interrupted(registers, stack)
        step = apply_plan(plan, registers, bounds, self._memory, interrupted)
        if isinstance(step, Stop):
            return self._switched(step, plan, registers, stack)
        if plan is LEAF and not self._without.may_be_return_address(step.registers.ip):
            return self._no_leaf(registers, stack, bounds)
        return self._checked(step, plan, registers, stack)

    @staticmethod
    def frame(at: Step, return_address: int | None, slot: int | None) -> Frame:
        """Return the `Frame` of `at`, given its return address and the stack slot that holds the return address."""
        registers = at.registers
        return Frame(registers, registers.sp, return_address, slot, at.trust, at.note, at.is_interrupted)

    def step_beyond(self, registers: Registers, stack: StackBounds, address: int) -> Step | Stop:
        """Walk from a frame that has made a call to the first frame whose return address was at or above `address`.

        Given the registers of a KSWITCHFRAME and the address of the thread's KTRAP_FRAME, the result has the user-mode
        registers. The registers that the trap frame does not hold (r12 to r15) come from the kernel's frames. A `Stop`
        says why the walk ended before it got there; it does not go on over a return address that was lost.
        """
        first = Step(registers, None, Trust.CONTEXT)
        for outcome in steps(self, first, stack, self._limit):
            if not isinstance(outcome, Stop) and outcome.gap:
                return Stop(End.LOST_RETURN_ADDRESS, outcome.gap)
            if isinstance(outcome, Stop) or (outcome.slot or 0) >= address:
                return outcome
        return Stop(End.FRAME_LIMIT, str(self._limit))

    def _no_leaf(self, registers: Registers, stack: StackBounds, bounds: StackBounds) -> Step | Stop:
        """Find the caller of interrupted code that has no unwind data, and no return address on top of the stack.

        It has moved the stack pointer, or its return address was overwritten. The code ahead tells which.
        """
        returned = self._without.returned_to(registers, bounds, is_interrupted=True)
        if isinstance(returned, Step) and not self._without.may_be_return_address(returned.registers.ip):
            return self._checked(returned, LEAF, registers, stack)
        return self._without_data(registers, stack, bounds, is_interrupted=True, why=_NO_DATA)

    def _without_data(
        self, registers: Registers, stack: StackBounds, bounds: StackBounds, *, is_interrupted: bool, why: str
    ) -> Step | Stop:
        """Find the caller of a frame without unwind data; `why` says why there is none.

        If no caller is found, and the code ahead returns to 0 at the base of the stack, the frame is the outermost.
        """
        faulted = None if is_interrupted else faulted_caller(registers, bounds, self._images, self._outside)
        found = faulted or self._without.caller(registers, bounds, is_interrupted=is_interrupted, why=why)
        if isinstance(found, Step):
            return found if _has_progressed(found, registers, stack) else _no_progress(found, registers)
        returned = self._without.returned_to(registers, bounds, is_interrupted=is_interrupted)
        if not isinstance(returned, Step) or returned.registers.ip or returned.slot is None:
            return found
        is_outermost = self._is_outermost(registers, returned.slot, stack)
        return Stop(End.THREAD_START, "return address 0", 0, returned.slot) if is_outermost else found

    def _beyond(
        self, plan: Stop, registers: Registers, stack: StackBounds, bounds: StackBounds, *, is_interrupted: bool
    ) -> Step | Stop:
        """Find the caller of a frame whose unwind data cannot be read, `plan` says why.

        Only code that is followed to its return gives a caller for certain. What rbp or a scan gives is a guess that
        may leave out frames, and then the walk is not complete.
        """
        if plan.end is not End.UNREADABLE:
            return plan
        why = f"not readable: {plan.detail}"
        found = self._without_data(registers, stack, bounds, is_interrupted=is_interrupted, why=why)
        if isinstance(found, Stop):
            return found if found.end is End.THREAD_START else plan
        is_certain = found.trust is Trust.PROLOGUE
        return found if is_certain else replace(found, gap=f"frames may be missing: {plan.detail} not readable")

    def _switched(self, stop: Stop, plan: UnwindPlan, registers: Registers, stack: StackBounds) -> Step | Stop:
        """Return the caller on another stack, to which the frame register leads; else `stop`, which ends the walk."""
        if stop.end is not End.STACK_BOUND or plan.result[0] == SP:
            return stop
        step = apply_plan(plan, registers, _ANYWHERE, self._memory)
        if isinstance(step, Stop) or not self._is_switch(step, plan, registers, stack):
            return stop
        return self._checked(step, plan, registers, stack)

    def _is_switch(self, step: Step, plan: UnwindPlan, registers: Registers, stack: StackBounds) -> bool:
        """Say whether the caller `step` is on another stack than its callee, to which the frame register has led.

        One of the two is on the stack with the bounds `stack`, or their stacks are different regions of memory. The
        return address is after a call.
        """
        if step.slot is None or plan.result[0] == SP:
            return False
        is_other = stack.contains(step.slot) != stack.contains(registers.sp)
        return (is_other or self._ends.are_apart(step.slot, registers.sp)) and self._without.is_return_address(
            step.registers.ip
        )

    def _checked(self, step: Step, plan: UnwindPlan, callee: Registers, stack: StackBounds) -> Step | Stop:
        """Return the caller `step`, which `plan` gave, or a `Stop` if the walk has to end.

        The walk ends if the stack pointer has not increased since the frame of `callee`, or if that frame is the first
        of the thread. If the caller's address is not in code, it was overwritten, and a caller further out is guessed.
        """
        registers = step.registers
        ip = registers.ip
        if (registers.gpr[SP] or 0) <= (callee.gpr[SP] or 0) and not _has_progressed(step, callee, stack):
            if not self._is_switch(step, plan, callee, stack):
                return _no_progress(step, callee)
            step = replace(step, note="the function had switched to another stack")
        if step.is_interrupted:
            return step
        is_start = self._ntdll.roles[callee.ip] is NtdllRole.THREAD_START
        if is_start or (ip == 0 and self._is_outermost(callee, step.slot or 0, stack)):
            return Stop(End.THREAD_START, "RtlUserThreadStart" if ip else "return address 0", ip, step.slot)
        called = self._plans.called(ip)
        if isinstance(called, Stop) and called.end is End.BAD_RETURN_ADDRESS:
            faulted = as_faulted(step, callee.ip, self._images, self._outside)
            if faulted is not None:
                return faulted
            return self._after_lost(ip, step.slot or 0, stack) or called
        return step

    def _after_lost(self, ip: int, slot: int, stack: StackBounds) -> Step | Stop | None:
        """Return a guess at a frame further out, as the return address at `slot` was overwritten by `ip`."""
        bounds = stack if stack.contains(slot) else _ANYWHERE
        found = self._without.scan(slot + 8, bounds)
        if found is not None:
            return replace(found, note=overwritten(slot, ip), gap=overwritten(slot, ip))
        return Stop(End.LOST_RETURN_ADDRESS, overwritten(slot), 0, slot) if ip == 0 else None

    def _is_outermost(self, callee: Registers, slot: int, stack: StackBounds) -> bool:
        """Say whether the return address of the frame `callee`, 0 at `slot`, is that of the outermost frame."""
        ip, ntdll = callee.ip, self._ntdll
        if ntdll.is_thread_start(ip) or ntdll.is_system_function(ip):
            return ntdll.is_thread_start(ip)
        return self._ends.is_outermost(slot, stack, has_caller=ntdll.is_native, is_library_s=ntdll.is_library_s(ip))


def _no_progress(step: Step, callee: Registers) -> Stop:
    return Stop(End.NO_PROGRESS, f"from {callee.sp:#x} to {step.registers.sp:#x}")


def _has_progressed(step: Step, callee: Registers, stack: StackBounds) -> bool:
    """Say whether the caller `step` has a higher stack pointer than `callee`, or was interrupted on another stack."""
    sp = step.registers.sp
    return sp > callee.sp or (step.is_interrupted and stack.contains(callee.sp) and not stack.contains(sp))
