# SPDX-License-Identifier: Apache-2.0
"""Triage finds the threads that are stuck on an unhandled exception. It tests all stacks cheaply and walks only a few.

The cheap test (`throwstack.stuck.suspects`): does the stack hold an address inside a blocking function or inside the
dispatcher of exceptions? A walk of the stack tells what this address is (`throwstack.stuck.walk_evidence`): a return
address of a stuck thread, or something left over from an earlier call.

A thread is found not to be stuck only by proof. If its walk ends early, ends at a zero in the middle of the stack, or
goes on with a guess, the rest of the stack is searched word by word (`throwstack.stuck.beyond_walk`). If that finds
nothing for certain, the thread is reported as not stuck, together with a doubt: a text that tells the user why the
thread may be stuck all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from throwstack.core.contexts import Context
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import End, Walk
from throwstack.core.guard import Guard
from throwstack.dispatch.fast_fail import fast_fail_exception
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.dispatch.search import SearchStart
from throwstack.dispatch.throwing_walks import throwing_walks
from throwstack.stuck.beyond_walk import Beyond, BeyondWalk, Proven
from throwstack.stuck.cause import led_by_cause
from throwstack.stuck.dispatch_state import DispatchState, NotBack
from throwstack.stuck.missing_names import missing_names, without_filter
from throwstack.stuck.overwritten import SoundStacks, overwritten_return
from throwstack.stuck.stuck_thread import StuckThread
from throwstack.stuck.suspects import FirstLook, Suspects
from throwstack.stuck.walk_evidence import WalkEvidence
from throwstack.unwind.proven import first_guess
from throwstack.unwind.target import Target, ThreadStack, current_stack, may_go_on

UNREAD_STACK = "its stack, or a part of it, cannot be read"


@dataclass(frozen=True, slots=True)
class Examination:
    """What the examination of one thread found.

    `stuck` is the stuck thread, or None if the thread was not found to be stuck. In the latter case `doubts` say why
    the thread may be stuck all the same.
    """

    stuck: StuckThread | None
    doubts: tuple[str, ...] = ()


class Triage:
    """Examines the threads of one target, one after the other."""

    def __init__(self, target: Target, *, handled: bool = False, sound: SoundStacks | None = None) -> None:
        """`target` is the process. The addresses of the functions to search for are looked up here.

        `handled`: threads are reported, too, on whose stacks there is an exception that a handler has taken. `sound`
        are stacks of other processes, too, that need no walk.
        """
        self._target = target
        lacking = without_filter(target.symbols)
        self._may_lack_filter = bool(lacking)
        for image in lacking:
            target.symbols.distrust(image)
        self._suspects = Suspects(target)
        self._evidence = WalkEvidence(target, handled=handled)
        self._beyond = BeyondWalk(target, self._suspects, self._evidence)
        self._sound = SoundStacks() if sound is None else sound
        self._doubt = ""

    @cached_property
    def missing_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the modules and reasons that `throwstack.stuck.missing_names` gives for the process."""
        return missing_names(self._target.symbols, may_lack_filter=self._may_lack_filter)

    def look_at(self, stack: ThreadStack) -> FirstLook:
        """Make the cheap test of the thread with this stack. The thread's budgets of work begin here."""
        return self._suspects.look_at(stack)

    def examine(
        self, stack: ThreadStack, complete: Callable[[ThreadStack], ThreadStack] = lambda stack: stack
    ) -> Examination:
        """Say whether the thread with this stack is stuck, and in what.

        `complete` returns the given stack with more of the thread's registers, and does not change ip and sp. As it
        costs much, it is called only if the cheap test says that the thread may be stuck.
        """
        self._doubt = ""
        look = self.look_at(stack)
        stuck = None
        if look.is_suspect:
            stuck = self._stuck(complete(look.stack), look.fast_fail)
        else:
            self._doubt = overwritten_return(self._target, look.stack, self._sound)
        if stuck is None:
            # Asking whether the stack is readable may spend what is left of a budget.
            is_whole = self._suspects.is_readable(look.stack) and not self._is_cut_off(look.stack)
            unread = () if is_whole else (UNREAD_STACK,)
            doubt = (self._doubt,) if self._doubt else ()
            return Examination(None, (*unread, *self._target.meter.spent, *doubt))
        return Examination(self._shown(stuck))

    def _is_cut_off(self, stack: ThreadStack) -> bool:
        """Say whether a lost page may have ended a stack that no TEB names.

        Example: a thread on a fiber of the program's own is stuck in a filter, and the page with the return address
        into UnhandledExceptionFilter is lost. What can be read of its stack ends before that page, and has no suspect
        word. Only a walk tells such a stack from a whole one in a part of a larger region. The walk of a whole stack
        comes to a start routine, or on x64 to a word that is no return address, as where a goroutine starts.
        """
        if stack.registers is None or not may_go_on(self._target, stack.bounds):
            return False
        walk = self._target.walk(stack.registers, stack.bounds)
        if first_guess(self._target, walk.frames) is not None:
            return True
        is_exact = not self._target.arch.facts.has_exception_list
        has_ended = is_exact and walk.end in {End.BAD_RETURN_ADDRESS, End.LOST_RETURN_ADDRESS}
        return not (walk.is_complete or has_ended)

    def stopped(self, stack: ThreadStack, record: ExceptionRecord, function: tuple[str, str]) -> StuckThread | None:
        """Return the stuck thread for a thread that the kernel has stopped over the exception `record`.

        The registers of `stack` are those of the exception; its CONTEXT is not in the process's memory, so its address
        is 0. `function` are module and symbol of the kernel's function that waits. The result is None if the registers
        are not known.
        """
        stack = current_stack(self._target, stack)
        if stack.registers is None:
            return None
        context = Context(self._target.arch, 0, 0, stack.registers, *(0,) * 7)
        exception = SavedException(record, context, (Route.KERNEL_STACK,), stack.registers.sp)
        thread = self._raised(stack, exception, self._target.walk(stack.registers, stack.bounds), function)
        return self._shown(replace(thread, dispatch=DispatchState(NotBack.KERNEL, function)))

    def _shown(self, stuck: StuckThread) -> StuckThread:
        """Return `stuck` in the form that is shown. If a part of this fails, it is returned with a note."""
        return led_by_cause(self._target, self._with_whole_walks(self._with_missed(stuck)))

    def _with_missed(self, stuck: StuckThread) -> StuckThread:
        """Return `stuck` with a note if the stack that threw its outermost exception may have one more."""
        if not stuck.throwing_walks:
            return stuck
        stack, walk = stuck.stack, stuck.throwing_walks[-1]
        doubts: list[str] = []
        with Guard(lambda reason: doubts.append(f"the search for exceptions further out: {reason}")):
            proven = self._beyond.proven(walk, stack, "the walk of the throwing stack")
            proven = replace(proven, reached=max(proven.reached, stuck.exceptions[-1].context.registers.sp))
            doubts.append(self._beyond.missed(stack, walk, proven, stuck, stack.bounds.base))
        return replace(stuck, notes=(*stuck.notes, *filter(None, doubts)))

    def _with_whole_walks(self, stuck: StuckThread) -> StuckThread:
        """Return `stuck` with its throwing walks in the form that is shown.

        If this fails, the thread is reported with the walks that it has, and with a note.
        """
        notes, walks = [*stuck.notes, *self._target.meter.spent], stuck.throwing_walks
        with Guard(lambda reason: notes.append(f"throwing stack: {reason}")):
            walks = throwing_walks(self._target, stuck.stack.bounds, stuck.exceptions, walks)
        return replace(stuck, throwing_walks=walks, notes=tuple(notes))

    def _stuck(self, stack: ThreadStack, fast_fail: int | None) -> StuckThread | None:
        if stack.registers is None or fast_fail is None:
            return self._walk(stack)
        return self._failed_fast(stack, fast_fail_exception(self._target.arch, stack.registers, fast_fail))

    def _walk(self, stack: ThreadStack) -> StuckThread | None:
        notes: tuple[str, ...] = (stack.missing,) if stack.missing else ()
        if stack.registers is None:
            return self._said(self._beyond.search(stack, None, Proven(0), notes))
        walk = self._target.walk(stack.registers, stack.bounds)
        stuck = self._evidence.stuck(stack, walk, notes, stack.registers.sp)
        proven = self._beyond.proven(walk, stack)
        if stuck is not None and stuck.exceptions:
            doubts: list[str] = []
            with Guard(lambda reason: doubts.append(f"the search for exceptions further in: {reason}")):
                doubts.append(self._beyond.missed(stack, walk, proven, stuck, stuck.exceptions[0].context.address))
            return replace(stuck, notes=(*stuck.notes, *filter(None, doubts)))
        if not proven.ending:
            self._doubt = self._evidence.unexplained
            return stuck
        notes += (proven.ending,)
        beyond = self._beyond.search(stack, walk, proven, notes)
        if stuck is None:
            return self._said(beyond)
        if beyond.stuck is None:
            return replace(stuck, notes=(*stuck.notes, *notes))
        more = (pair for pair in stuck.blocked_in if pair not in beyond.stuck.blocked_in)
        return replace(beyond.stuck, blocked_in=(*beyond.stuck.blocked_in, *more))

    def _said(self, beyond: Beyond) -> StuckThread | None:
        """Return the stuck thread that was found beyond the walk; keep the doubt if there is none."""
        self._doubt = beyond.doubt or self._evidence.unexplained
        return beyond.stuck

    def _failed_fast(self, stack: ThreadStack, failure: SavedException) -> StuckThread:
        """Return the stuck thread for a thread that failed fast with the exception `failure`.

        It has the function that failed fast and the other exceptions in flight.
        """
        registers = failure.context.registers
        walk = self._target.walk(registers, stack.bounds)
        stuck = self._evidence.stuck(stack, walk, (), registers.sp)
        if stuck is not None and stuck.dispatch is None:
            exceptions, walks = (failure, *stuck.exceptions), (walk, *stuck.throwing_walks)
            return replace(stuck, exceptions=exceptions, throwing_walks=walks)
        name = self._target.symbols.name(registers.ip)
        return self._raised(stack, failure, walk, (name.module, name.symbol or f"+{name.offset:#x}"))

    def _raised(
        self, stack: ThreadStack, exception: SavedException, walk: Walk, function: tuple[str, str]
    ) -> StuckThread:
        """Return the stuck thread that waits where it raised `exception`; it has the other exceptions in flight, too.

        `walk` is its stack, and `function` are module and symbol of what it waits in.
        """
        blocked = SearchStart(
            walk.frames,
            exception.context.registers.sp,
            is_complete=walk.is_complete,
            proves_exception=False,
            registrations=self._evidence.registrations(stack),
        )
        found = self._evidence.in_flight(stack, blocked)
        exceptions, walks = (exception, *found.exceptions), (walk, *found.walks)
        return StuckThread(stack, (function,), exceptions, walks, walk, found.notes, taken=found.taken)
