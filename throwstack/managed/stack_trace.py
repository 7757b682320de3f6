# SPDX-License-Identifier: Apache-2.0
"""The stack that a managed exception recorded: its field `_stackTrace`.

While the runtime looks for a handler, it appends one element for each managed frame. Up to .NET 8 the field has an
array of bytes; in .NET 9 and later it may have an array of objects, whose first element is that array of bytes (the
others keep methods alive that can be unloaded). The array of bytes is {count, Thread*}, 16 bytes on x64 and 8 on x86,
then elements {ip, sp, MethodDesc*, u32 flags} of four words (clrex.h, StackTraceElement). The innermost frame is first.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.managed.heap_objects import HeapArray, HeapObjects
from throwstack.managed.managed_exception import ManagedFrame, ManagedMethod
from throwstack.managed.methods import Methods
from throwstack.managed.runtime_memory import StructureError

MAX_FRAMES = 1000
_PLACE_TEXT, _KEPT_BACK = 128, 1024
"""How many characters of a frame's text count as one place that is looked at; and how many places frames must leave
for the rest of the exception, its class and message."""
_LAST_FROM_EARLIER, _IP_IS_BEFORE_RETURN = 1, 2
_ALL_FLAGS = 0xF
"""More than these are no flags: .NET Framework 2.0 has something else there."""
_WORDS = 4
_UNKNOWN = ManagedMethod("", reason="no method is known at this address")


@dataclass(frozen=True, slots=True)
class RecordedStack:
    """The frames of `_stackTrace`, innermost first, and what of it is missing ("" if nothing)."""

    frames: tuple[ManagedFrame, ...] = ()
    problem: str = ""


def recorded_stack(objects: HeapObjects, methods: Methods, address: int, most: int = MAX_FRAMES) -> RecordedStack:
    """Return the stack in the array at `address`, the value of `_stackTrace`; without frames if it is null.

    At most `most` frames are read, and 1,000. Each counts as places that are looked at (`Budgets.managed`), the more
    the longer its text is: a thousand exceptions can have one array as their stack. Raises nothing: what cannot be
    read, or is beyond the budget, is a problem of the result.
    """
    if address == 0:
        return RecordedStack()
    try:
        array = _bytes_of(objects, address)
        return _frames(objects, methods, array, most)
    except MemoryUnreadable as error:
        return RecordedStack(problem=f"the recorded stack is not readable at {error.address:#x}")
    except StructureError as error:
        return RecordedStack(problem=f"the recorded stack cannot be read: {error}")


def _bytes_of(objects: HeapObjects, address: int) -> HeapArray:
    array = objects.array(address)
    if array.element_size == objects.memory.size and array.length:
        array = objects.array(objects.memory.word(array.data))
    if array.element_size != 1:
        message = "it is no array of bytes"
        raise StructureError(message)
    return array


def _frames(objects: HeapObjects, methods: Methods, array: HeapArray, most: int) -> RecordedStack:
    memory, size = objects.memory, objects.memory.size
    head, stride = 2 * size, _WORDS * size
    room = max(array.length - head, 0) // stride
    claimed = memory.memory.u32(array.data) if array.length >= head else 0
    count = min(claimed, room, MAX_FRAMES, most)
    words = memory.words(array.data + head, count * _WORDS)
    frames: list[ManagedFrame] = []
    for at in range(0, len(words) - _WORDS + 1, _WORDS):
        ip, sp, method_desc, flags = words[at : at + _WORDS]
        if memory.left <= _KEPT_BACK:
            what = f"the first {len(frames):,} of {claimed:,} frames of the recorded stack are shown"
            return RecordedStack(tuple(frames), f"{what}: the budget for one exception is spent")
        method = methods.find(method_desc) or _UNKNOWN
        text = len(method.name) + len(method.parameters) + len(method.original)
        memory.spend(min(1 + text // _PLACE_TEXT, max(memory.left - 1, 0)))
        flags = flags & 0xFFFFFFFF if flags & 0xFFFFFFFF <= _ALL_FLAGS else 0
        is_last, is_before = bool(flags & _LAST_FROM_EARLIER), bool(flags & _IP_IS_BEFORE_RETURN)
        frames.append(ManagedFrame(ip, sp, method_desc, method, is_last, is_before))
    problem = ""
    if claimed > room:
        problem = f"the recorded stack claims {claimed:,} frames, and has room for {room:,}"
    elif len(frames) < count:
        problem = f"only {len(frames):,} of {count:,} frames of the recorded stack are readable"
    elif claimed > count:
        problem = f"the first {count:,} of {claimed:,} frames of the recorded stack are shown"
    return RecordedStack(tuple(frames), problem)
