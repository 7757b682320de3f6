# SPDX-License-Identifier: Apache-2.0
"""The exceptions in flight on a thread: every route to a saved CONTEXT, asked in order of how telling it is.

Frames that the walk confirmed come first: the argument of UnhandledExceptionFilter and of handlers (x86), the
dispatcher's and RtlRaiseException's frames, registrations of ExecuteHandler in the thread's chain (x86). Pointers and
registers confirm those; alone they count only where no frame told and where a function on the stack proves that an
exception went unhandled. A scan for CONTEXT records is the last resort.

An exception that was raised while another one was being handled is found first. The stack that threw it is then
walked from its CONTEXT, whose registers are all known, and the next dispatch is looked for there, and so on outwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from throwstack.core.frames import Frame, StackBounds
from throwstack.core.registers import Arch
from throwstack.dispatch import x64, x86
from throwstack.dispatch.failures import from_failure_frame
from throwstack.dispatch.live import is_stale
from throwstack.dispatch.pointers import from_registers, scan_pointers
from throwstack.dispatch.saved import Route, SavedException, merge, rank
from throwstack.dispatch.scan import scan_contexts
from throwstack.names.frame_names import name_of
from throwstack.unwind.target import Target

MAX_NESTED = 16
_MAX_FOUND = 256
_UNWINDERS = frozenset({"RtlUnwind", "RtlUnwindEx", "RtlUnwind2"})


@dataclass(frozen=True, slots=True)
class Blocked:
    """Where on a thread the search starts.

    `frames` are those of the thread's walk, innermost first (none, if there is no walk), `low` the stack address from
    which pointers count. `is_complete`: the walk reached the start of the thread. `proves_exception`: one of the
    functions on the stack runs only when an exception went unhandled. `registrations` is the x86 chain of exception
    registrations, None where it is not known.
    """

    frames: Sequence[Frame]
    low: int
    is_complete: bool = False
    proves_exception: bool = True
    registrations: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class InFlight:
    """The exceptions being dispatched on a thread, innermost first, and what else there is to say of them."""

    exceptions: tuple[SavedException, ...] = ()
    notes: tuple[str, ...] = field(default=())


def exceptions_in_flight(target: Target, stack: StackBounds, blocked: Blocked) -> InFlight:
    """Return the exceptions being dispatched on the thread with this stack."""
    return _Search(target, stack, blocked).run()


class _Search:
    """One search: the thread's registrations are read once."""

    def __init__(self, target: Target, stack: StackBounds, blocked: Blocked) -> None:
        self._target = target
        self._stack = stack
        self._blocked = blocked
        chain = blocked.registrations
        self._registered = (
            [] if chain is None else list(islice(x86.from_registrations(target, stack, chain), _MAX_FOUND))
        )
        self._knows_registrations = chain is not None and x86.is_whole_chain(target, chain)

    def run(self) -> InFlight:
        found: list[SavedException] = []
        notes: list[str] = []
        frames, is_complete = self._blocked.frames, self._blocked.is_complete
        low = min([self._blocked.low, *(frame.sp for frame in frames[:1])])
        for depth in range(MAX_NESTED):
            item = self._by_frames(frames, low, is_complete=is_complete)
            if item is None and depth == 0 and self._blocked.proves_exception:
                item = self._by_memory(frames, is_complete=is_complete)
            if item is None:
                break
            if item.disagreement:
                notes.append(item.disagreement)
            if self._was_taken(item, frames, low, is_innermost=depth == 0):
                notes.append(
                    f"exception {item.record.code:#010x} at {item.record.address:#x} was dispatched further out, and a "
                    f"handler seems to have taken it (context {item.context.address:#x})"
                )
            else:
                found.append(item)
            low = item.context.registers.sp
            walk = self._target.walk(item.context.registers, self._stack)
            frames, is_complete = [frame for frame in walk.frames if frame.sp >= low], walk.is_complete
        return InFlight(tuple(found), tuple(notes))

    def _by_frames(self, frames: Sequence[Frame], low: int, *, is_complete: bool) -> SavedException | None:
        """Return the innermost exception that a frame or a registration tells of, or None."""
        told = [
            item
            for item in self._told_by_frames(frames)
            if item.routes != (Route.HANDLER_ARGUMENTS,)
            or not is_stale(self._target, self._stack, frames, item, is_complete=is_complete)
        ]
        told += [item for item in self._registered if item.frame_sp >= low]
        if not told:
            return None
        # What lies beyond the innermost one's throw is told of the exceptions further out.
        bound = min(item.context.registers.sp for item in told)
        here = merge(item for item in told if item.frame_sp < bound)
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

    def _told_by_frames(self, frames: Sequence[Frame]) -> Iterator[SavedException]:
        target, stack = self._target, self._stack
        for index, frame in enumerate(frames):
            name = name_of(target.symbols, frame)
            found = None
            if target.arch is Arch.X86:
                found = x86.from_frame(target, stack, frame, name)
            elif name.symbol in x64.DISPATCHERS:
                found = x64.from_dispatcher_frame(target, stack, frame)
            elif name.symbol in x64.RAISERS and index + 1 < len(frames):
                found = x64.from_raise_frame(target, stack, frame, frames[index + 1])
            found = found or from_failure_frame(target, stack, frame, name)
            if found is not None and found.context.registers.sp > frame.sp:
                yield found

    def _pointed_at(self, frames: Sequence[Frame], low: int, high: int) -> Iterator[SavedException]:
        yield from islice(from_registers(self._target, self._stack, frames), _MAX_FOUND)
        yield from islice(scan_pointers(self._target, self._stack, low, high), _MAX_FOUND)

    def _by_memory(self, frames: Sequence[Frame], *, is_complete: bool) -> SavedException | None:
        """Return the innermost exception that registers and words of the stack lead to, where no frame tells."""
        low = self._blocked.low

        def live(found: Iterator[SavedException]) -> tuple[SavedException, ...]:
            return merge(
                item for item in found if not is_stale(self._target, self._stack, frames, item, is_complete=is_complete)
            )

        outer = [frame for frame in frames if frame.sp >= low]
        found = live(self._pointed_at(outer, low, self._stack.base))
        if not found:
            found = live(islice(scan_contexts(self._target, self._stack, low), _MAX_FOUND))
        return found[0] if found else None

    def _was_taken(self, item: SavedException, frames: Sequence[Frame], low: int, *, is_innermost: bool) -> bool:
        """Say whether a handler has taken the exception, although its dispatcher's frames are still on the stack.

        A C++ catch block on x86, and the __finally blocks that run before an __except block, run below them.
        """
        if is_innermost and self._blocked.proves_exception:
            return False
        if self._target.arch.facts.has_exception_list and self._knows_registrations:
            return not any(low <= known.frame_sp and known.key == item.key for known in self._registered)
        inside = (frame for frame in frames if frame.sp < item.context.address)
        return is_innermost and any(name_of(self._target.symbols, frame).symbol in _UNWINDERS for frame in inside)


def _disagreement(taken: SavedException, other: SavedException) -> str:
    return (
        f"{other.found_by} gives another context, {other.context.address:#x} "
        f"with exception {other.record.code:#010x}, than {taken.routes[0].value}"
    )
