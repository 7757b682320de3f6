# SPDX-License-Identifier: Apache-2.0
"""Finds threads that look healthy only because a return address on their stacks was overwritten.

Triage walks a stack if a word on it is in a blocking function or in the dispatcher of exceptions. Of some stuck threads
one word alone shows that. Example: a program's handler of pure virtual calls waits for a crash reporter.

    ntdll!NtWaitForSingleObject
    app!OnPureCall                  its return address is the only word on the stack that is in _purecall
    VCRUNTIME140!_purecall
    app!View::Draw

If that word is overwritten, no search finds it. But the walk from the innermost frame comes to a word that is no return
address. So each stack without a word of interest is walked, unless it is as an earlier one was: most threads are idle
and wait in the same few functions of system DLLs, which have the same addresses in all processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from throwstack.core.frames import End, Walk
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import BP
from throwstack.stuck.outermost import NEAR_BASE, ends_at_base
from throwstack.unwind.target import Target, ThreadStack
from throwstack.unwind.thread_start import says_overwritten

_MAX_SPAN = 0x2000
_MAX_LINKS = 256
_MAX_SHAPES = 32
"""How many sound stacks with the same innermost instruction are remembered."""
_MAX_PLACES = 4096
_MAX_SHIFT = 0x1000
"""How much more or less, at most, is above the outermost frame of a stack than on one of the same shape.

Since Vista the kernel starts a thread at a random distance of up to half a page below the base of its stack."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """The return addresses of a sound stack: `values`, packed as `words`, which begin at the stack pointer.

    `to_base` is the distance from the stack pointer to the base of the stack.
    """

    words: Struct
    values: tuple[int, ...]
    to_base: int


class SoundStacks:
    """Remembers stacks whose walks came to their bases, in all processes.

    A stack is as sound as one of these if the words at the same distances from its stack pointer are the same return
    addresses, and it is as long: none of them was overwritten.
    """

    def __init__(self) -> None:
        """Nothing is remembered at first."""
        self._shapes: dict[tuple[int, int], list[_Shape]] = {}

    def has(self, target: Target, stack: ThreadStack) -> bool:
        """Say whether the stack is as sound as one that is remembered; False if its registers are not known."""
        if stack.registers is None:
            return False
        sp = stack.registers.sp
        for shape in self._shapes.get((target.arch.pointer_size, stack.registers.ip), ()):
            if abs(stack.bounds.base - sp - shape.to_base) <= _MAX_SHIFT:
                data = target.memory.read_available(sp, shape.words.size)
                if len(data) == shape.words.size and shape.words.unpack(data) == shape.values:
                    return True
        return False

    def keep(self, target: Target, stack: ThreadStack, walk: Walk) -> None:
        """Remember the stack with the sound `walk`, if it is of an ordinary size and order."""
        slots = [frame.return_slot for frame in walk.frames if frame.return_slot is not None]
        if walk.left_out or not slots or len(self._shapes) >= _MAX_PLACES:
            return
        size, sp = target.arch.pointer_size, walk.frames[0].sp
        form, end = "<", sp
        for slot in slots:
            if not end <= slot < sp + _MAX_SPAN:
                return
            form += f"{slot - end}x{'Q' if size == 8 else 'I'}"
            end = slot + size
        words = Struct(form)
        data = target.memory.read_available(sp, words.size)
        shapes = self._shapes.setdefault((size, walk.frames[0].ip), [])
        if len(data) == words.size and len(shapes) < _MAX_SHAPES:
            shapes.append(_Shape(words, words.unpack(data), stack.bounds.base - sp))


def overwritten_return(target: Target, stack: ThreadStack, sound: SoundStacks) -> str:
    """Return a text that says which return address of a stack was overwritten; "" if none was.

    It is "" too if the registers are not known. If the budget of such walks is spent, the meter of the target says so.
    """
    if stack.registers is None or _has_whole_chain(target, stack) or sound.has(target, stack):
        return ""
    if not target.meter.take(target.meter.budgets.probes):
        return ""
    walk = target.walk(stack.registers, stack.bounds)
    if walk.is_complete or ends_at_base(walk, stack):
        sound.keep(target, stack, walk)
    elif walk.end is End.LOST_RETURN_ADDRESS and says_overwritten(walk.detail):
        return f"the walk of the blocked stack ended early: {walk.end.in_words(walk.detail)}"
    elif says_overwritten(walk.gap):
        return f"the walk of the blocked stack has a gap: {walk.gap}"
    return ""


def _has_whole_chain(target: Target, stack: ThreadStack) -> bool:
    """Say whether the chain of saved ebp values of an x86 stack is whole, with a return address at each link.

    It has to lead from ebp to an outermost frame, which has saved 0, near the base of the stack. A walk of x86 follows
    code and costs much more. What it would find beside is a return address of a function without such a frame.
    """
    if target.arch.facts.has_function_table or stack.registers is None:
        return False
    bp = stack.registers.gpr[BP]
    for _ in range(_MAX_LINKS):
        if bp is None or not stack.bounds.contains(bp, 8):
            return False
        try:
            outer, returns_to = target.memory.u32(bp), target.memory.u32(bp + 4)
        except MemoryUnreadable:
            return False
        if outer == 0:
            return stack.bounds.base - bp <= NEAR_BASE
        if outer <= bp or not target.is_code(returns_to - 1):
            return False
        bp = outer
    return False
