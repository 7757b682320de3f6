# SPDX-License-Identifier: Apache-2.0
"""A stuck thread, as `throwstack.stuck.triage` finds it. It has values and walks; nothing is read later."""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.frames import Walk
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.names.blockers import BlockerKind, blocker_named
from throwstack.unwind.target import ThreadStack


@dataclass(frozen=True, slots=True)
class StuckThread:
    """A thread that is stuck: in which functions, on which exceptions, on which stack.

    `blocked_in` holds (module label, symbol) pairs: first the function that explains the wait, then the others from the
    outermost inwards. `exceptions` are innermost first, and `throwing_walks` has the stack that threw each of them; a
    walk that failed has the end `End.FAULT`. `blocked_walk` is the stack on which the thread waits, None if its
    registers are not known.
    """

    stack: ThreadStack
    blocked_in: tuple[tuple[str, str], ...]
    exceptions: tuple[SavedException, ...]
    throwing_walks: tuple[Walk, ...]
    blocked_walk: Walk | None
    notes: tuple[str, ...]

    @property
    def kinds(self) -> tuple[BlockerKind, ...]:
        """Return the kinds of the blockers in which the thread is stuck."""
        found = (blocker_named(module, symbol) for module, symbol in self.blocked_in)
        kinds = tuple(blocker.kind for blocker in found if blocker is not None)
        is_fast = any(Route.FAST_FAIL in exception.routes for exception in self.exceptions)
        return (*kinds, BlockerKind.FAIL_FAST) if is_fast and BlockerKind.FAIL_FAST not in kinds else kinds
