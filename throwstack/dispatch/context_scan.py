# SPDX-License-Identifier: Apache-2.0
"""Scans a stack for CONTEXT records by their ContextFlags. This is done only if no other way finds an exception.

A CONTEXT alone does not prove an exception. It is accepted if an exception record on the same stack has the same
instruction address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from throwstack.core.contexts import Context
from throwstack.core.exception_record import read_record
from throwstack.core.frames import StackBounds
from throwstack.core.memory import PAGE_SIZE, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.stack_words import pages_between
from throwstack.dispatch.exception_pointers import MAX_BYTES
from throwstack.dispatch.saved_exception import Route, SavedException, saved_exception
from throwstack.unwind.target import Target

# ContextFlags (winnt.h): CONTEXT_CONTROL and CONTEXT_INTEGER with any of the parts that Windows adds. Bit 16 means x86,
# bit 20 means x64. The high byte may have CONTEXT_EXCEPTION_REPORTING and related flags.
_FLAGS = {
    Arch.X86: re.compile(rb"[\x03\x07\x0b\x0f\x13\x17\x1b\x1f\x23\x27\x2b\x2f\x33\x37\x3b\x3f\x7f]\0\x01[\0-\xff]"),
    Arch.X64: re.compile(rb"[\x03\x07\x0b\x0f\x13\x17\x1b\x1f\x5b\x5f]\0\x10[\0-\xff]"),
}
_MAX_RECORDS = 64
_REMEMBERED = 64
"""How many bytes of the budget a page costs if another page with the same contents was searched before."""
_MAX_CONTEXTS = 1024
_MAX_FLAGS = 0xFF
_LOWEST_CODE = 0x40000000
_ALWAYS_SET, _EFLAGS_END = 2, 1 << 22


def context_offsets(data: bytes, arch: Arch) -> Iterator[int]:
    """Yield the offsets in `data` at which a CONTEXT may start, according to its ContextFlags.

    The first byte of `data` must be at a page-aligned address.
    """
    for match in _FLAGS[arch].finditer(data):
        start = match.start() - arch.facts.context_flags_at
        if not start % arch.facts.context_alignment:
            yield start


def scan_contexts(target: Target, stack: StackBounds, low: int) -> Iterator[SavedException]:
    """Yield the exceptions whose CONTEXT is on the stack at `low` or above, lowest address first.

    `stack` has the bounds of the stack.
    """
    arch, memory, size = target.arch, target.memory, target.arch.pointer_size
    low = (max(low, stack.limit) + 15) & -16
    high = min(stack.base, low + MAX_BYTES)
    data: bytes | None = None
    looked_at = 0
    for address in _contexts(target, low, high):
        ip_at = address + arch.facts.context_ip_at
        ip = memory.read_available(ip_at, size)
        if ip_at + size > high or len(ip) < size or not any(ip):
            continue
        looked_at += 1
        if looked_at > _MAX_CONTEXTS:
            return
        data = memory.read_available(low, high - low) if data is None else data
        for record in _records(target, data, ip):
            if not _is_plausible_record(target, low + record):
                continue
            found = saved_exception(target, stack, low + record, address, route=Route.SCAN, frame_sp=address)
            if found is not None and _has_plausible_eflags(found.context):
                yield found
                break


def _contexts(target: Target, low: int, high: int) -> Iterator[int]:
    """Yield the addresses from `low` to `high` at which CONTEXTs may start.

    The iteration ends at the first page that is not in memory, or when the budget of bytes to search is spent.
    """
    budget = target.meter.budgets.searched
    known: dict[bytes, tuple[int, ...]] = {}
    for page_address, page in pages_between(target.memory, low, high):
        size = _REMEMBERED if page in known else PAGE_SIZE
        if page is None or target.meter.take(budget, size) < size:
            return
        if page not in known:
            known[page] = tuple(context_offsets(page, target.arch))
        yield from (page_address + offset for offset in known[page] if page_address + offset >= low)


def _records(target: Target, data: bytes, ip: bytes) -> Iterator[int]:
    """Yield the offsets in `data` at which an exception record may start whose ExceptionAddress is `ip`.

    `data` are the contents of the stack.
    """
    at, alignment = target.arch.facts.record_address_at, target.arch.pointer_size
    budget = target.meter.budgets.searched
    position = at
    for _ in range(_MAX_RECORDS):
        end = position + target.meter.left(budget)
        found = data.find(ip, position, end)
        target.meter.take(budget, (found if found >= 0 else len(data)) - position + 1)
        if found < 0:
            return
        if (found - at) % alignment == 0:
            yield found - at
        position = found + 1


def _is_plausible_record(target: Target, address: int) -> bool:
    """Say whether the words at `address` can be an exception record.

    The code, the flags and the pointer to the next record must be plausible. Example of words that are not a record: a
    saved instruction pointer three words after a small number. A code that Windows or a runtime raises starts with 0x4,
    0x8 or 0xC (NTSTATUS), or 0xE (the C++ runtime, the CLR), and is not an address in an image.
    """
    try:
        record = read_record(target.memory, address, target.arch)
    except MemoryUnreadable:
        return False
    return (
        record.code >= _LOWEST_CODE
        and target.images.find(record.code) is None
        and record.flags <= _MAX_FLAGS
        and (not record.nested or target.memory.is_readable(record.nested))
    )


def _has_plausible_eflags(context: Context) -> bool:
    """Say whether user code can have these EFLAGS: bit 1 is always set, bits 22 and above never are."""
    return bool(context.eflags & _ALWAYS_SET) and context.eflags < _EFLAGS_END
