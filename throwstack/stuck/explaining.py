# SPDX-License-Identifier: Apache-2.0
"""Says which blocking functions on a stack explain what the thread waits for now, and which are over.

A stack keeps what led to the wait. Not all of it is what the thread waits for:

- A program calls DebugBreak, and no debugger is there. The breakpoint is dispatched, and the filter reports it to WER.
  The thread waits for WER; it does not wait for a debugger in DebugBreak, which is further out than the dispatcher.
- An assertion of a console program fails: `_wassert` writes to stderr and calls abort. It shows no box any more.
- .NET's Environment.FailFast calls EEPolicy::HandleFatalError, which reports by WatsonLastChance. Nobody looked for a
  handler, as WatsonLastChance else means.
"""

from __future__ import annotations

from collections.abc import Sequence

from throwstack.names.blockers import Blocker, BlockerKind


def explaining(blockers: Sequence[Blocker | None], inside: int) -> list[bool]:
    """Return for each frame of a walk whether its blocking function explains the wait; True where there is none.

    `blockers` has the blocking function of each frame, innermost first, or None. The innermost exception in flight was
    thrown outside the first `inside` frames.
    """
    kinds = [None if blocker is None else blocker.kind for blocker in blockers]
    return [_explains(kinds, index, is_inside=index < inside) for index in range(len(kinds))]


def _explains(kinds: Sequence[BlockerKind | None], index: int, *, is_inside: bool) -> bool:
    match kinds[index]:
        case BlockerKind.JIT_DEBUGGER:
            return is_inside
        case BlockerKind.ERROR_BOX:
            return BlockerKind.ABORT not in kinds[:index]
        case BlockerKind.CLR_WATSON:
            return BlockerKind.FAIL_FAST not in kinds[index:]
        case _:
            return True
