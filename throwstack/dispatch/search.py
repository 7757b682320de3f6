# SPDX-License-Identifier: Apache-2.0
"""Searches a thread's stack for the CONTEXTs of its exceptions in flight, that is, of those whose dispatch is not over.

There are several routes to a saved CONTEXT (`throwstack.dispatch.saved_exception.Route`), some more reliable than
others:

1. Frames of the walk: the argument of UnhandledExceptionFilter and of handlers (x86), the frames of the dispatcher, of
   RtlRaiseException and of RaiseFailFastException, registrations of ExecuteHandler in the thread's chain (x86).
2. Pointers on the stack and in registers. They confirm an exception that a frame gives. Without such a frame they are
   used only if a function on the stack proves that an exception went unhandled.
3. A scan of the stack for CONTEXT records, under the same condition, if neither frames nor pointers give anything.

Exceptions nest: a handler for a first exception may raise a second one. The second, which is further in, is found
first. The walk from its CONTEXT, in which all registers are known, is the stack that threw it. The dispatch of the
first exception is on that stack, and is searched for there. The search goes on in this way, outwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from throwstack.core.frames import Frame, StackBounds, Walk
from throwstack.core.registers import Arch
from throwstack.dispatch import x64, x86
from throwstack.dispatch.context_scan import scan_contexts
from throwstack.dispatch.exception_pointers import from_registers, scan_pointers
from throwstack.dispatch.gs_failure import from_gs_failure_frame
from throwstack.dispatch.raisers import FAIL_FAST, captures_itself
from throwstack.dispatch.saved_exception import Route, SavedException, merge, rank
from throwstack.dispatch.stale_contexts import is_stale
from throwstack.dispatch.taken import Answer, Registered, Taken, is_unnamed_ntdll, taken
from throwstack.names.dispatch_functions import DispatchRole, role_of
from throwstack.names.frame_names import name_of
from throwstack.unwind.target import Target, guarded_walk

MAX_NESTED = 16


@dataclass(frozen=True, slots=True)
class SearchStart:
    """Where on a thread the search starts, and what is known about the thread.

    `frames` are the frames of the thread's walk, innermost first; none if there is no walk. Pointers below the stack
    address `low` are ignored. `is_complete`: the walk reached the start of the thread. `proves_exception`: one of the
    functions on the stack runs only when an exception went unhandled. `registrations` is the x86 chain of exception
    registrations (addresses on the stack, innermost first), or None if it is not known.
    """

    frames: Sequence[Frame]
    low: int
    is_complete: bool = False
    proves_exception: bool = True
    registrations: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class FoundExceptions:
    """The exceptions in flight on a thread, innermost first, with notes for the user.

    `walks` has, for each exception, the walk from its CONTEXT, which the search needs and the caller can use again.
    `taken` are the exceptions that a handler has taken although their dispatch is still on the stack, with their walks
    in `taken_walks`.
    """

    exceptions: tuple[SavedException, ...] = ()
    walks: tuple[Walk, ...] = ()
    notes: tuple[str, ...] = ()
    taken: tuple[SavedException, ...] = ()
    taken_walks: tuple[Walk, ...] = ()


def exceptions_in_flight(target: Target, stack: StackBounds, start: SearchStart) -> FoundExceptions:
    """Return the exceptions in flight on the thread with this stack, at most `MAX_NESTED`, and a walk for each.

    `stack` has the bounds of the stack. `start` says where the search starts.
    """
    return _Search(target, stack, start).run()


class _Search:
    """One search for the exceptions of one thread."""

    def __init__(self, target: Target, stack: StackBounds, start: SearchStart) -> None:
        self._target = target
        self._stack = stack
        self._start = start
        chain = start.registrations
        self._registered: Registered | None = None
        if target.arch.facts.has_exception_list:
            found = [] if chain is None else list(x86.from_registrations(target, stack, chain))
            is_known = chain is not None and x86.is_whole_chain(target, chain)
            self._registered = Registered(found, chain or (), is_known)

    def run(self) -> FoundExceptions:
        found: list[tuple[SavedException, Walk]] = []
        handled: list[tuple[SavedException, Walk]] = []
        notes: list[str] = []
        frames, is_complete = self._start.frames, self._start.is_complete
        low = min([self._start.low, *(frame.sp for frame in frames)])
        to_prove = self._start.proves_exception
        for depth in range(MAX_NESTED):
            item = self._by_frames(frames, low, is_complete=is_complete)
            is_proven = to_prove and item is not None and item.context.registers.sp > self._start.low
            if item is None and depth == 0 and to_prove:
                item, is_proven = self._by_memory(frames, is_complete=is_complete), True
            if item is None:
                break
            if item.disagreement:
                notes.append(item.disagreement)
            to_prove = to_prove and not is_proven
            answer = self._taken(item, frames, low, is_proven=is_proven, is_outer=bool(found))
            walk = guarded_walk(self._target.walk, item.context.registers, self._stack)
            (handled if answer.taken is Taken.YES else found).append((item, walk))
            if answer.taken is Taken.UNKNOWN:
                notes.append(f"{_of(item)}: a handler may have taken it{_at(item)}: {answer.why}")
            # A function that captured itself is in the walk from its CONTEXT once more.
            low = item.context.registers.sp + captures_itself(self._target, item.context.registers.ip)
            frames, is_complete = [frame for frame in walk.frames if frame.sp >= low], walk.is_complete
        return FoundExceptions(
            tuple(item for item, _ in found),
            tuple(walk for _, walk in found),
            tuple(notes),
            tuple(item for item, _ in handled),
            tuple(walk for _, walk in handled),
        )

    def _by_frames(self, frames: Sequence[Frame], low: int, *, is_complete: bool) -> SavedException | None:
        """Return the innermost exception that is found by a frame or by an exception registration, or None.

        Registrations below the stack address `low` are ignored. `is_complete`: the walk `frames` reached the start of
        the thread.
        """
        found = [
            item
            for item in self._from_frames(frames)
            if item.routes != (Route.HANDLER_ARGUMENTS,)
            or not is_stale(self._target, self._stack, frames, item, is_complete=is_complete)
        ]
        if self._registered is not None:
            found += [item for item in self._registered.found if item.frame_sp >= low]
        if not found:
            return None
        # Frames outside the frame that threw the innermost exception belong to the dispatch of exceptions further out.
        bound = min(item.context.registers.sp for item in found)
        here = merge(item for item in found if item.frame_sp < bound or item.is_in_own_frame)
        if not here:
            return None
        best = min(here, key=rank)
        inside = [frame for frame in frames if frame.sp < best.context.registers.sp]
        confirming = (item for item in self._pointed_at(inside, low, best.context.registers.sp) if item.key == best.key)
        (merged,) = merge([best, *confirming])
        others = [item for item in here if item.key != best.key]
        if others:
            return replace(merged, disagreement=_disagreement(merged, others[0]))
        return merged

    def _from_frames(self, frames: Sequence[Frame]) -> Iterator[SavedException]:
        target, stack = self._target, self._stack
        for index, frame in enumerate(frames):
            name = name_of(target.symbols, frame)
            role = role_of(name.symbol)
            found = None
            if is_unnamed_ntdll(target, name):
                found = self._from_unnamed(frames, index)
            elif target.arch is Arch.X86:
                found = x86.from_frame(target, stack, frame, name)
            elif role is DispatchRole.DISPATCHER:
                found = x64.from_dispatcher_frame(target, stack, frame)
            elif role is DispatchRole.RAISER and index + 1 < len(frames):
                found = x64.from_raise_frame(target, stack, frame, frames[index + 1])
            elif name.symbol == FAIL_FAST and index + 1 < len(frames):
                found = x64.from_fail_fast_frame(target, stack, frame, frames[index + 1])
            found = found or from_gs_failure_frame(target, stack, frame, name)
            if found is not None and (found.context.registers.sp > frame.sp or found.is_in_own_frame):
                yield found

    def _from_unnamed(self, frames: Sequence[Frame], index: int) -> SavedException | None:
        """Return the exception that a frame of ntdll would give if it were the dispatcher's or RtlRaiseException's.

        What is found has to fit: the CONTEXT at the frame's sp, or the caller's state in a CONTEXT inside the frame.
        """
        target, stack, frame = self._target, self._stack, frames[index]
        if target.arch is Arch.X86:
            return x86.from_unnamed_frame(target, stack, frame)
        if index + 1 == len(frames):
            return None
        if frames[index + 1].is_interrupted:
            return x64.from_dispatcher_frame(target, stack, frame)
        return x64.from_raise_frame(target, stack, frame, frames[index + 1])

    def _pointed_at(self, frames: Sequence[Frame], low: int, high: int) -> Iterator[SavedException]:
        yield from from_registers(self._target, self._stack, frames)
        yield from scan_pointers(self._target, self._stack, low, high)

    def _by_memory(self, frames: Sequence[Frame], *, is_complete: bool) -> SavedException | None:
        """Return the innermost exception that pointers in registers or on the stack point to, or None.

        If there is none, the stack is scanned for CONTEXTs. `is_complete`: the walk `frames` reached the start of the
        thread.
        """
        low = self._start.low

        def in_flight(found: Iterator[SavedException]) -> tuple[SavedException, ...]:
            return merge(
                item for item in found if not is_stale(self._target, self._stack, frames, item, is_complete=is_complete)
            )

        outer = [frame for frame in frames if frame.sp >= low]
        found = in_flight(self._pointed_at(outer, low, self._stack.base))
        if not found:
            found = in_flight(scan_contexts(self._target, self._stack, low))
        return found[0] if found else None

    def _taken(
        self, item: SavedException, frames: Sequence[Frame], low: int, *, is_proven: bool, is_outer: bool
    ) -> Answer:
        """Say whether a handler has taken `item`, which was found on `frames`, from the stack address `low` on.

        `is_proven`: a function on the stack says that nobody took it. That is so of the innermost exception that was
        thrown further out than the function. One thrown further in, by the program's crash filter, may be taken there.
        `is_outer`: an exception that nobody has taken is further in.
        Then `item` led to that one, and is reported even if a handler has taken it, unless the registrations say so.
        """
        if is_proven or Route.FAIL_FAST_FRAME in item.routes:
            return Answer(Taken.NO)  # RaiseFailFastException dispatches nothing: no handler is asked
        if is_outer and (self._registered is None or not self._registered.is_known):
            return Answer(Taken.NO)
        return taken(self._target, item, frames, low, self._registered)


def _of(item: SavedException) -> str:
    return f"exception {item.record.code:#010x} at {item.record.address:#x}"


def _at(item: SavedException) -> str:
    return f" (context {item.context.address:#x})"


def _disagreement(taken: SavedException, other: SavedException) -> str:
    return (
        f"{other.found_by} gives another context, {other.context.address:#x} "
        f"with exception {other.record.code:#010x}, than {taken.routes[0].value}"
    )
