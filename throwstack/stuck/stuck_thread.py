# SPDX-License-Identifier: Apache-2.0
"""A stuck thread, as `throwstack.stuck.triage` finds it. All its data are read already, so that it needs no dump."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from throwstack.core.frames import Walk
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.names.blockers import BlockerKind, blocker_named
from throwstack.stuck.dispatch_state import DispatchState
from throwstack.unwind.target import ThreadStack


class ExceptionRole(Enum):
    """What an exception has to do with the others in flight on its thread."""

    CAUSE = "cause"
    """Its handling led to the end: the thread is named after it."""
    END = "end"
    """It was raised while the cause was being reported: by abort, by a crash filter, or by another such end."""
    OUTER = "outer"
    """It was being handled when the cause was raised."""


@dataclass(frozen=True, slots=True)
class StuckThread:
    """A thread that is stuck, with the functions in which it waits, the exceptions in flight on it, and their stacks.

    `stack` is where the thread's stack and registers are. `blocked_in` holds (module label, symbol) pairs: first the
    function that explains the wait best, then the others from the outermost inwards. `exceptions` has the cause first,
    then the `end_count` exceptions that ended it, in the order in which they were raised, then those that were being
    handled when the cause was raised, from the latest to the original. `throwing_walks` has, for each of `exceptions`,
    the stack that threw it; a walk that failed has the end `End.FAULT`.
    `blocked_walk` is the stack on which the thread waits, or None if the thread's registers are not known. `notes` are
    remarks for the user. `dispatch` says who has not come back, if an exception is being dispatched and no blocking
    function says what the thread waits for; else it is None. `taken` are the exceptions that a handler has taken
    although their dispatch is still on the stack, innermost first. If they were asked for, they can be in `exceptions`
    as well.
    """

    stack: ThreadStack
    blocked_in: tuple[tuple[str, str], ...]
    exceptions: tuple[SavedException, ...]
    throwing_walks: tuple[Walk, ...]
    blocked_walk: Walk | None
    notes: tuple[str, ...]
    dispatch: DispatchState | None = None
    end_count: int = 0
    taken: tuple[SavedException, ...] = ()

    def role_of(self, index: int) -> ExceptionRole:
        """Return what the exception at `index` of `exceptions` has to do with the others."""
        if not index:
            return ExceptionRole.CAUSE
        return ExceptionRole.END if index <= self.end_count else ExceptionRole.OUTER

    @property
    def kinds(self) -> tuple[BlockerKind, ...]:
        """Return the kinds of the functions in `blocked_in`, and FAIL_FAST if the thread failed fast."""
        found = (blocker_named(module, symbol) for module, symbol in self.blocked_in)
        kinds = tuple(blocker.kind for blocker in found if blocker is not None)
        is_fast = any(Route.FAST_FAIL in exception.routes for exception in self.exceptions)
        return (*kinds, BlockerKind.FAIL_FAST) if is_fast and BlockerKind.FAIL_FAST not in kinds else kinds
