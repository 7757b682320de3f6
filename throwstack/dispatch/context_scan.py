# SPDX-License-Identifier: Apache-2.0
"""Scans a stack for CONTEXT records by their ContextFlags. This is done only if no other way finds an exception.

A CONTEXT alone does not prove an exception. It is accepted if an exception record on the same stack has the same
instruction address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from throwstack.core.contexts import Context
from throwstack.core.exception_record import read_record
from throwstack.core.frames import StackBounds
from throwstack.core.memory import MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.core.stack_words import round_up, words_equal
from throwstack.dispatch.exception_pointers import MAX_BYTES
from throwstack.dispatch.raisers import has_plausible_head
from throwstack.dispatch.saved_exception import Route, SavedException, saved_exception
from throwstack.unwind.target import Target

# ContextFlags (winnt.h): CONTEXT_CONTROL and CONTEXT_INTEGER with any of the parts that Windows adds. Bit 16 means x86,
# bit 20 means x64. The high byte may have CONTEXT_EXCEPTION_REPORTING and related flags.
_FLAGS = {
    Arch.X86: re.compile(rb"[\x03\x07\x0b\x0f\x13\x17\x1b\x1f\x23\x27\x2b\x2f\x33\x37\x3b\x3f\x7f]\0\x01[\0-\xff]"),
    Arch.X64: re.compile(rb"[\x03\x07\x0b\x0f\x13\x17\x1b\x1f\x5b\x5f]\0\x10[\0-\xff]"),
}
_MAX_RECORDS = 64
"""How many words with the address of an instruction are looked at, for a record that names this instruction."""
_MAX_CONTEXTS = 1024
_FIXED_EFLAGS, _SET_EFLAGS = 0xFFC00002, 2
"""The bits of EFLAGS that no code can change, and those of them that are set: bit 1, and none of 22 to 31."""


def context_offsets(data: bytes, arch: Arch) -> Iterator[int]:
    """Yield the offsets from `data` at which a CONTEXT may start, according to its ContextFlags.

    The first byte of `data` must be at an address at which a CONTEXT can start. On x64 an offset may be negative: of a
    CONTEXT that starts before `data`, and has its ContextFlags in it.
    """
    for match in _FLAGS[arch].finditer(data):
        start = match.start() - arch.facts.context_flags_at
        if not start % arch.facts.context_alignment:
            yield start


def scan_contexts(target: Target, stack: StackBounds, low: int) -> Iterator[SavedException]:
    """Yield the exceptions whose CONTEXT is on the stack at `low` or above, lowest address first.

    `stack` has the bounds of the stack. The search ends at the first page that is not in memory, after 4 MiB, or when
    the budget of bytes to search is spent.
    """
    low = round_up(max(low, stack.limit), target.arch.facts.context_alignment)
    data = target.memory.read_available(low, min(stack.base - low, MAX_BYTES))
    data = data[: target.meter.take(target.meter.budgets.searched, len(data))]
    for address, ip in islice(_contexts(target.arch, data, low), _MAX_CONTEXTS):
        for record in _records(target, data, ip):
            if not _is_plausible_record(target, low + record):
                continue
            found = saved_exception(target, stack, low + record, address, route=Route.SCAN, frame_sp=address)
            if found is not None and _has_plausible_eflags(found.context):
                yield found
                break


def _contexts(arch: Arch, data: bytes, low: int) -> Iterator[tuple[int, int]]:
    """Yield the addresses at which a CONTEXT may start, and the CONTEXT's ip, which is not 0. `data` are from `low` on.

    An ip of 0 is that of a CONTEXT with which the dispatcher works.
    """
    for start in context_offsets(data, arch):
        address, at = low + start, start + arch.facts.context_ip_at
        ip = int.from_bytes(data[at : at + arch.pointer_size], "little")
        if ip and address >= low:
            yield address, ip


def _records(target: Target, data: bytes, ip: int) -> Iterator[int]:
    """Yield the offsets in `data` at which an exception record may start whose ExceptionAddress is `ip`.

    `data` are the contents of the stack.
    """
    if target.meter.take(target.meter.budgets.searched, len(data)) == len(data):
        addresses = data[target.arch.facts.record_address_at :]  # of a record at the start of `data`, and of all after
        yield from islice(words_equal(addresses, ip, target.arch.pointer_size), _MAX_RECORDS)


def _is_plausible_record(target: Target, address: int) -> bool:
    """Say whether the words at `address` can be an exception record."""
    try:
        return has_plausible_head(target, read_record(target.memory, address, target.arch))
    except MemoryUnreadable:
        return False


def _has_plausible_eflags(context: Context) -> bool:
    return context.eflags & _FIXED_EFLAGS == _SET_EFLAGS
