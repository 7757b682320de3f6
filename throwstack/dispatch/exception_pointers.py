# SPDX-License-Identifier: Apache-2.0
"""Finds exceptions by pointers to their record and CONTEXT, in EXCEPTION_POINTERS, handlers' arguments and registers.

Filters, handlers and the dispatchers keep the two addresses in adjacent words (EXCEPTION_POINTERS {ExceptionRecord,
ContextRecord}), or with one word between them (the arguments of an x86 exception handler: record, registration,
CONTEXT, dispatcher context). Record and CONTEXT themselves are further out on the same stack, or (after a stack-cookie
failure) in globals of the failing module. A nonvolatile register may hold the address of the two pointers, or the
address of the record or the CONTEXT.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice, product

from throwstack.core.frames import Frame, StackBounds
from throwstack.core.memory import PAGE_SIZE, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.stack_words import CodeRanges, pages_between, round_up
from throwstack.dispatch.saved_exception import Route, SavedException, saved_exception
from throwstack.unwind.target import Target

MAX_BYTES = 4 << 20
"""How many bytes of a stack are searched. The linker reserves a quarter of this for a stack by default."""
_REMEMBERED = 64
"""How many bytes of the budget a page costs if another page with the same contents was searched before."""
_DISTANCES = {
    Arch.X86: ((1, Route.POINTERS), (2, Route.HANDLER_ARGUMENTS)),
    Arch.X64: ((1, Route.POINTERS),),
}
"""How many words after the pointer to the record the pointer to the CONTEXT may be, and what the two are then."""
_MAX_CHECKS = 4096
"""How many pairs of words are examined at most, so that a stack filled with plausible pointers takes no minutes."""


def scan_pointers(target: Target, stack: StackBounds, low: int, high: int) -> Iterator[SavedException]:
    """Yield the exceptions to whose record and CONTEXT two words on the stack point, in order of the words' addresses.

    The words are adjacent, or (on x86) have one word between them. They are searched from stack address `low` to
    `high`.
    """
    size, base = target.arch.pointer_size, stack.base
    low, high = round_up(max(low, stack.limit), size), min(high, base)
    for address, record, context, route in islice(_pairs(target, low, min(high, low + MAX_BYTES), base), _MAX_CHECKS):
        found = saved_exception(target, stack, record, context, route=route, frame_sp=address)
        if found is not None:
            yield found


def _pairs(target: Target, low: int, high: int, base: int) -> Iterator[tuple[int, int, int, Route]]:
    """Yield (address of the first word, record, CONTEXT, route) for the words that both point further out."""
    size = target.arch.pointer_size
    with suppress(MemoryUnreadable):
        for address, record in _pointers(target, low, high, base):
            for distance, route in _DISTANCES[target.arch]:
                context = target.memory.pointer(address + distance * size, size)
                if address < min(record, context) and context < base and not context % size:
                    yield address, record, context, route


def _pointers(target: Target, low: int, high: int, base: int) -> Iterator[tuple[int, int]]:
    """Yield (address, word) for the words from `low` to `high` that point to the stack from `low` to `base`.

    The iteration ends at the first page that is not in memory, or when the budget is spent.
    """
    size, meter = target.arch.pointer_size, target.meter
    on_stack = CodeRanges([(low, base - 1)], size)
    for page_address, page in pages_between(target.memory, low, high):
        if page is None or not _take_page(target, on_stack, page):
            return
        offsets = on_stack.offsets(page)
        if meter.take(meter.budgets.pointers, len(offsets)) < len(offsets):
            return
        for offset in offsets:
            address, word = page_address + offset, int.from_bytes(page[offset : offset + size], "little")
            if low <= address < high and not word % size:
                yield address, word


def _take_page(target: Target, ranges: CodeRanges, page: bytes) -> bool:
    """Take the cost of searching `page` from the budget, and say whether the budget was large enough.

    A page with the same contents as an earlier one costs less, because `ranges` remembers the result of the search.
    """
    size = _REMEMBERED if ranges.is_known(page) else PAGE_SIZE
    return target.meter.take(target.meter.budgets.searched, size) == size


def pair_at(
    target: Target, stack: StackBounds, address: int, *, route: Route, frame_sp: int, distance: int = 1
) -> SavedException | None:
    """Return the exception to whose record and CONTEXT two words on the stack point, or None.

    The word at `address` points to the record. The word that is `distance` words after it points to the CONTEXT.
    `route` and `frame_sp` are put into the result: how the exception was found, and the stack address of the frame.
    """
    memory, size = target.memory, target.arch.pointer_size
    try:
        record, context = memory.pointer(address, size), memory.pointer(address + distance * size, size)
    except MemoryUnreadable:
        return None
    return saved_exception(target, stack, record, context, route=route, frame_sp=frame_sp)


def from_registers(target: Target, stack: StackBounds, frames: Iterable[Frame]) -> Iterator[SavedException]:
    """Yield the exceptions that the nonvolatile registers of `frames` point to.

    Either one register holds the address of two adjacent pointers, to record and CONTEXT. Or one register holds the
    address of the record, and another that of the CONTEXT.
    """
    numbers = target.arch.facts.nonvolatile
    places: dict[tuple[int, ...], int] = {}  # many frames have the same values
    for frame in frames:
        values = tuple(sorted({value for number in numbers if (value := frame.registers.gpr[number])}))
        places.setdefault(values, frame.child_sp)
    for values, sp in places.items():
        for value in values:
            found = pair_at(target, stack, value, route=Route.REGISTER, frame_sp=sp)
            if found is not None:
                yield found
        for context, record in product(filter(stack.contains, values), values):
            found = saved_exception(target, stack, record, context, route=Route.REGISTER, frame_sp=sp)
            if found is not None:
                yield found
