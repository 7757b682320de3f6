# SPDX-License-Identifier: Apache-2.0
"""Throwing walks: for each exception of a thread, the walk of the stack that threw it, in the form that is shown.

The search for exceptions (`throwstack.dispatch.search`) has made these walks already. Two things are left to do:

- The number of frames that a search may walk is limited. A walk that this limit refused is made here, because each
  exception that is reported is shown with its stack.
- An x86 stack has no return address where the kernel interrupted it. For example, a handler for a division by zero runs
  and reads a null pointer. The walk from the second fault goes down to KiUserExceptionDispatcher, which nobody called,
  and can only guess from there. But the CONTEXT of the division by zero says exactly where the program was. So the
  stack is continued with the walk from that CONTEXT, and the first frame of that walk has a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from throwstack.core.frames import End, StackBounds, Walk
from throwstack.core.registers import Arch
from throwstack.dispatch.saved_exception import SavedException
from throwstack.unwind.target import Target, guarded_walk


def throwing_walks(
    target: Target, stack: StackBounds, exceptions: Sequence[SavedException], walks: Sequence[Walk]
) -> tuple[Walk, ...]:
    """Return the throwing walk of each of `exceptions`, which are ordered innermost first.

    `walks` are the walks that the search made, one for each exception. `stack` has the bounds of the stack.
    """
    whole = [
        guarded_walk(target.unwinder.walk, exception.context.registers, stack) if _is_refused(walk) else walk
        for exception, walk in zip(exceptions, walks, strict=True)
    ]
    if target.arch is not Arch.X86:
        return tuple(whole)
    return tuple(_joined(walk, exceptions[index:], whole[index:]) for index, walk in enumerate(whole, 1))


def _is_refused(walk: Walk) -> bool:
    return walk.end is End.WORK_LIMIT and len(walk.frames) == 1


def _joined(walk: Walk, outer_exceptions: Sequence[SavedException], outer_walks: Sequence[Walk]) -> Walk:
    """Return `walk`, continued with the walks of the exceptions further out.

    `outer_exceptions` and `outer_walks` are these exceptions and their walks, innermost first. Where `walk` does not
    reach the throw of one of them by itself, its frames inside that exception's CONTEXT are followed by the frames of
    that exception's walk.
    """
    for outer, beyond in zip(outer_exceptions, outer_walks, strict=True):
        if any((frame.ip, frame.sp) == outer.key for frame in walk.frames):
            continue
        inside = tuple(frame for frame in walk.frames if frame.sp < outer.context.address)
        if not inside or not beyond.frames:
            break
        gap = "" if len(inside) < len(walk.frames) else f"; the frames between are not known: {walk.end.value}"
        code = f"{outer.record.code:#010x}"
        first = replace(beyond.frames[0], note=f"raised {code}, whose dispatch led to the frame inside{gap}")
        walk = replace(beyond, frames=(*inside, first, *beyond.frames[1:]))
    return walk
