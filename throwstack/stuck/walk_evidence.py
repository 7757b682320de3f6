# SPDX-License-Identifier: Apache-2.0
"""Says what a walk of a thread's stack shows: a blocking function, a dispatch that has not come back, or neither.

A walk through a blocking function makes a stuck thread. So does a walk through the dispatcher, if the search for
exceptions (`throwstack.dispatch.search`) finds one there that no handler has taken. An exception that only tells a
debugger something makes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, pairwise

from throwstack.core.frames import Frame, Walk
from throwstack.core.guard import Guard
from throwstack.dispatch.exception_pointers import scan_pointers
from throwstack.dispatch.saved_exception import SavedException, merge
from throwstack.dispatch.search import FoundExceptions, SearchStart, exceptions_in_flight
from throwstack.dispatch.taken import shows_dispatch
from throwstack.dispatch.x86 import END_OF_CHAIN, from_registrations
from throwstack.exceptions.debugger_signals import is_debugger_signal
from throwstack.names.blockers import Blocker, blocked_in, blocker_named
from throwstack.names.dispatch_functions import IN_DISPATCH, DispatchRole, role_of
from throwstack.names.frame_names import name_of
from throwstack.names.symbols import Name, SymbolKind
from throwstack.stuck.dispatch_state import DispatchState, dispatch_state, handled_state
from throwstack.stuck.error_box import unknown_box, without_own_boxes
from throwstack.stuck.explaining import explaining
from throwstack.stuck.stuck_thread import StuckThread
from throwstack.stuck.suspects import may_be_in_function
from throwstack.unwind.proven import first_guess
from throwstack.unwind.target import Target, ThreadStack, guarded_walk
from throwstack.unwind.x86.unwinder import registration_chain

BROKE_OFF = "the search for the saved CONTEXT broke off"
"""The beginning of the note that explains why a stuck thread has no exception."""
_MAX_CAUGHT = 256


class WalkEvidence:
    """Reads the walks of the threads of one target."""

    def __init__(self, target: Target, *, handled: bool = False) -> None:
        """`target` is the process. `handled`: a thread with an exception that a handler has taken is reported, too."""
        self._target = target
        self._handled = handled
        self.unexplained = ""
        """Why the last walk that was read may be that of a stuck thread, although no exception was found on it."""

    def stuck(self, stack: ThreadStack, walk: Walk, notes: tuple[str, ...], low: int) -> StuckThread | None:
        """Return the stuck thread that `walk` shows, or None if it shows none.

        `low` is the stack address at which the walk starts.
        """
        self.unexplained = ""
        names = [name_of(self._target.symbols, frame) for frame in walk.frames]
        blockers, box_notes = without_own_boxes(self._target, walk, [self.blocker(name) for name in names])
        shows = shows_dispatch(self._target, walk.frames) or self._has_handler_running(stack)
        may_dispatch = shows or not walk.is_complete or first_guess(self._target, walk.frames) is not None
        is_blocked = any(
            blocker is not None and blocker.is_triage and (shows or not blocker.needs_dispatch) for blocker in blockers
        )
        if may_dispatch and not shows and not is_blocked:
            self.unexplained = _may_report(names, blockers) or unknown_box(self._target, walk)
        if not is_blocked and not shows:
            return self._in_catch_block(stack, walk, notes)
        pairs = [(name.module, name.symbol if blocker else "") for name, blocker in zip(names, blockers, strict=True)]
        proofs = [index for index, blocker in enumerate(blockers) if blocker is not None and blocker.proves_exception]
        blocked = SearchStart(
            walk.frames,
            max(low, walk.frames[proofs[0]].sp) if proofs else low,
            is_complete=walk.is_complete,
            proves_exception=bool(proofs),
            registrations=self.registrations(stack),
        )
        found = self.in_flight(stack, blocked)
        if not is_blocked and not proofs:
            self.unexplained = "" if found.exceptions else self._without_exception(names, walk.frames, found)
            thread = StuckThread(stack, blocked_in(pairs), (), (), walk, (*notes, *box_notes), taken=found.taken)
            return self._in_dispatch(thread, walk.frames, found) or self._in_catch_block(stack, walk, notes)
        if not (found.exceptions or found.taken or found.notes) and self._is_doubtful(names, blockers):
            return None
        missed = self._missed_dispatch(names, walk.frames, found)
        found = _without_signals(found, may_be_all=not proofs)
        notes = (*notes, *found.notes, *box_notes, *missed)
        if proofs and not found.exceptions:
            notes += ("the saved CONTEXT was not found",)
        thrown = found.exceptions[0].context.registers.sp if found.exceptions else stack.bounds.base
        inside = sum(frame.sp < thrown for frame in walk.frames)
        waits = [pair for pair, counts in zip(pairs, explaining(blockers, inside), strict=True) if counts]
        exceptions, walks = found.exceptions, found.walks
        return StuckThread(stack, blocked_in(waits), exceptions, walks, walk, notes, taken=found.taken)

    def in_flight(self, stack: ThreadStack, blocked: SearchStart) -> FoundExceptions:
        """Return the exceptions in flight on the thread.

        If the search fails, the result has no exceptions and a note, so that a stuck thread is reported all the same.
        """
        found: list[FoundExceptions] = []
        notes: list[str] = []
        with Guard(lambda reason: notes.append(f"{BROKE_OFF}: {reason}")):
            found.append(exceptions_in_flight(self._target, stack.bounds, blocked))
        return found[0] if found else FoundExceptions(notes=tuple(notes))

    def _in_dispatch(self, thread: StuckThread, frames: Sequence[Frame], found: FoundExceptions) -> StuckThread | None:
        """Return `thread`, on which no function proves an exception, with the exceptions that are being dispatched.

        `frames` are those of its walk, and `found` is what was found on it. The result is None if there is no exception
        but some that handlers have taken, or signals to a debugger.
        """
        live = _not_signals(found)
        if live:
            inside = _inside(frames, live[0][0], found.taken)
            names = [name_of(self._target.symbols, frame) for frame in frames]
            notes = (*found.notes, *self._missed_dispatch(names, frames, found))
            return _with_state(thread, live, dispatch_state(self._target, inside, live[0][0]), notes)
        handled = list(zip(found.taken, found.taken_walks, strict=True)) if self._handled else []
        if handled:
            inside = _inside(frames, handled[0][0], ())
            return _with_state(thread, handled, handled_state(self._target, inside, handled[0][0]), found.notes)
        return None

    def _without_exception(self, names: Sequence[Name], frames: Sequence[Frame], found: FoundExceptions) -> str:
        """Return a doubt if a frame further out than all exceptions that were found on a walk is in the dispatcher.

        Its name has to be certain. On x86 it is enough that the walk has gone from it to code that the kernel
        interrupted; on x64 RcConsolidateFrames leads to such code as well. Example: a crash reporter in a filter
        catches an exception of its own, and the CONTEXT of the crash is damaged.
        """
        thrown = max((item.context.registers.sp for item in found.taken), default=0)
        for index, name in enumerate(names):
            if frames[index].sp < thrown:
                continue
            is_certain = name.is_certain and role_of(name.symbol) in IN_DISPATCH
            if is_certain or self._is_dispatcher(names, frames, index):
                return f"the frame at {name.address:#x} is in {name.module}!{name.symbol}, without an exception there"
        return ""

    def _is_dispatcher(self, names: Sequence[Name], frames: Sequence[Frame], index: int) -> bool:
        """Say whether a frame is the kernel's dispatcher for certain."""
        if role_of(names[index].symbol) is not DispatchRole.DISPATCHER:
            return False
        is_left = index + 1 < len(frames) and frames[index + 1].is_interrupted
        return names[index].is_certain or (self._target.arch.facts.has_exception_list and is_left)

    def _missed_dispatch(self, names: Sequence[Name], frames: Sequence[Frame], found: FoundExceptions) -> Iterator[str]:
        """Yield doubts about frames of the kernel's dispatcher whose exception was not found, although others were.

        Example: a catch block faults, and the CONTEXT of the fault is damaged. What the block has caught is still on
        the stack, further out, and is found instead. The CONTEXT of a dispatch is further out than its frame, and
        further in than the frame of the next one. A frame of RtlRaiseException is no reason to doubt: where another
        function of the dispatcher has called it, it has none of its own.
        """
        contexts = [item.context.address for item in (*found.exceptions, *found.taken)]
        for index in range(len(frames) - 1, -1, -1) if contexts else ():
            name, frame = names[index], frames[index]
            if role_of(name.symbol) not in {DispatchRole.DISPATCHER, DispatchRole.RAISER}:
                continue
            here = [address for address in contexts if address >= frame.sp]
            if not here and self._is_dispatcher(names, frames, index):
                yield f"the frame at {frame.ip:#x} is in {name.module}!{name.symbol}, without an exception there"
            contexts = [address for address in contexts if address < frame.sp]

    def _in_catch_block(self, stack: ThreadStack, walk: Walk, notes: tuple[str, ...]) -> StuckThread | None:
        """Return a thread with an exception whose catch block runs on x64, if such are asked for; else None.

        RtlUnwindEx calls the block through RcConsolidateFrames, whose unwind data leads to the function that catches.
        The stack that threw is between the two, with its dispatch, and `walk` has nothing of it.
        """
        if not self._handled or self._target.arch.facts.has_exception_list:
            return None
        bounds, frames = stack.bounds, walk.frames
        for index, (inner, outer) in enumerate(pairwise(frames), 1):
            if not outer.is_interrupted or not self._is_catcher(name_of(self._target.symbols, inner)):
                continue
            found = merge(islice(scan_pointers(self._target, bounds, inner.sp, outer.sp), _MAX_CAUGHT))
            if found:
                state = handled_state(self._target, frames[:index], found[0])
                caught = [(item, guarded_walk(self._target.walk, item.context.registers, bounds)) for item in found]
                return _with_state(StuckThread(stack, (), (), (), walk, notes), caught, state, ())
        return None

    def _has_handler_running(self, stack: ThreadStack) -> bool:
        """Say whether ExecuteHandler has a registration in the thread's chain (x86), so that a handler is running.

        A walk may miss the dispatcher. Example: the filter of an __except block is a part of its function and runs with
        that function's ebp, so that the walk goes on with the function's caller, far beyond the dispatcher.
        """
        chain = self.registrations(stack) or ()
        return next(from_registrations(self._target, stack.bounds, chain), None) is not None

    def _is_doubtful(self, names: Sequence[Name], blockers: Sequence[Blocker | None]) -> bool:
        """Say whether only doubtful names make a walk that of a stuck thread; if so, say it as a doubt.

        Example: on x86 a private function comes after UnhandledExceptionFilter in KERNELBASE, and only exports are
        known. The filter's name is accepted far from its symbol, but then its argument has to lead to an exception.
        """
        blocking = [(name, one) for name, one in zip(names, blockers, strict=True) if one is not None and one.is_triage]
        if not blocking or not all(name.is_doubtful and one.proves_exception for name, one in blocking):
            return False
        name = blocking[0][0]
        self.unexplained = f"the frame at {name.address:#x} may be in {name.module}!{name.symbol}, without an exception"
        return True

    def _is_catcher(self, name: Name) -> bool:
        """Say whether `name` is RcConsolidateFrames, or may be it: the function is not exported."""
        if name.is_certain and name.symbol:
            return role_of(name.symbol) is DispatchRole.CATCHER
        return name.module.lower() == "ntdll"

    def registrations(self, stack: ThreadStack) -> tuple[int, ...] | None:
        """Return the thread's exception registrations on x86, innermost first; None if they are not known."""
        if not self._target.arch.facts.has_exception_list or stack.exception_list is None:
            return None
        chain = registration_chain(self._target.memory, stack.exception_list, stack.bounds)
        return chain if chain or stack.exception_list == END_OF_CHAIN else None

    def proves_exception(self, name: Name) -> bool:
        """Say whether `name` is that of a function that runs only if an exception went unhandled."""
        blocker = self.blocker(name)
        return blocker is not None and blocker.proves_exception

    def blocker(self, name: Name) -> Blocker | None:
        """Return the blocking function that `name` names, or None.

        A name is doubtful if the address may be in another function after the named one. On x64 the result for a
        doubtful name is None. On x86 a name is doubtful merely because the address is far from the symbol, and
        UnhandledExceptionFilter is long: on Windows XP its call of ReportFault returns to +0x55b. So on x86 a doubtful
        name is accepted if its function proves an exception, that is, runs only if one went unhandled.

        A function of a C runtime that is linked into a program counts as one of triage if a PDB names it for certain.
        """
        blocker = blocker_named(name.module, name.symbol) if may_be_in_function(name) else None
        if blocker is not None and blocker.is_linked and name.is_certain and name.kind is SymbolKind.PDB:
            return replace(blocker, is_triage=True)
        if blocker is None or not name.is_doubtful:
            return blocker
        return None if self._target.arch.facts.has_function_table or not blocker.proves_exception else blocker


def _may_report(names: Sequence[Name], blockers: Sequence[Blocker | None]) -> str:
    """Return a doubt about a walk with a guess through a function that needs a dispatch; "" if there is none.

    Example: a thread submits a report to WER. Whether a crash filter does it or the program by itself is not seen.
    """
    for name, blocker in zip(names, blockers, strict=True):
        if blocker is not None and blocker.needs_dispatch:
            return f"{name.module}!{name.symbol} may report an exception that the walk, a guess in part, does not show"
    return ""


def _inside(
    frames: Sequence[Frame], exception: SavedException, passed_over: Sequence[SavedException]
) -> Sequence[Frame]:
    """Return the frames between the wait and the dispatcher of `exception`.

    `passed_over` are exceptions that were not reported. What is below the throw of one of them belongs to it.
    """
    high = exception.context.address
    low = max((item.context.registers.sp for item in passed_over if item.context.address < high), default=0)
    return [frame for frame in frames if low <= frame.sp < high or frame.child_sp == high]


def _not_signals(found: FoundExceptions) -> list[tuple[SavedException, Walk]]:
    """Return the exceptions in flight of `found`, with their walks, but those that only tell a debugger something."""
    pairs = zip(found.exceptions, found.walks, strict=True)
    return [(item, walk) for item, walk in pairs if not is_debugger_signal(item.record.code)]


def _without_signals(found: FoundExceptions, *, may_be_all: bool) -> FoundExceptions:
    """Return `found` without the exceptions that only tell a debugger something, and with a note of them.

    Example: DllMain writes a debug message while the process ends, and a vectored handler of a tool waits. The thread
    hangs in the shutdown, and nothing crashed. `may_be_all`: the thread is stuck in something even without an
    exception. Else signals stay if there is nothing but signals: a function says that an exception went unhandled, and
    a signal that nobody handles ends a program, too.
    """
    live = _not_signals(found)
    signals = [item for item in found.exceptions if is_debugger_signal(item.record.code)]
    if not signals or not (live or may_be_all):
        return found
    notes = (
        f"exception {item.record.code:#010x} at {item.record.address:#x} only tells a debugger something ({item.where})"
        for item in signals
    )
    exceptions, walks = tuple(item for item, _ in live), tuple(walk for _, walk in live)
    return replace(found, exceptions=exceptions, walks=walks, notes=(*found.notes, *notes))


def _with_state(
    thread: StuckThread,
    exceptions: Sequence[tuple[SavedException, Walk]],
    state: DispatchState,
    notes: tuple[str, ...],
) -> StuckThread:
    return replace(
        thread,
        blocked_in=thread.blocked_in or (state.blocked_in,),
        exceptions=tuple(item for item, _ in exceptions),
        throwing_walks=tuple(walk for _, walk in exceptions),
        notes=(*thread.notes, *notes),
        dispatch=state,
    )
