# SPDX-License-Identifier: Apache-2.0
"""Words on a stack that point at a record and a CONTEXT: EXCEPTION_POINTERS and handlers' arguments.

Filters, handlers and the dispatchers keep the two addresses side by side (EXCEPTION_POINTERS {ExceptionRecord,
ContextRecord}), or with the registration frame between them (the arguments of an x86 exception handler: record,
frame, context, dispatcher context). Both record and CONTEXT lie further out on the same stack.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from throwstack.dispatch.saved import Route, SavedException, saved_exception
from throwstack.frames import StackBounds
from throwstack.target import Target

_MAX_STACK_BYTES = 16 << 20


def scan_pointers(target: Target, stack: StackBounds, low: int, high: int) -> Iterator[SavedException]:
    """Yield what pairs of words between the stack addresses `low` and `high` point at, in stack order."""
    size = target.arch.pointer_size
    low = (max(low, stack.limit) + size - 1) & -size
    data = target.memory.read_available(low, min(high, stack.base) - low)[:_MAX_STACK_BYTES]
    count = len(data) // size
    words = struct.unpack(f"<{count}{'Q' if size == 8 else 'I'}", data[: count * size])
    distances = ((1, Route.POINTERS),) if size == 8 else ((1, Route.POINTERS), (2, Route.HANDLER_ARGUMENTS))
    base = stack.base
    for index in range(count - 2):
        word = words[index]
        address = low + index * size
        if not address < word < base:
            continue
        for distance, route in distances:
            context = words[index + distance]
            if address < context < base and context != word:
                found = saved_exception(target, stack, word, context, route=route, frame_sp=address)
                if found is not None:
                    yield found
