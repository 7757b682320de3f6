# SPDX-License-Identifier: Apache-2.0
"""The last resort: CONTEXT records on a stack, found by their ContextFlags.

A CONTEXT alone says nothing of an exception: it counts where a record on the same stack names the same instruction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from throwstack.contexts import Context
from throwstack.dispatch.pointers import MAX_BYTES
from throwstack.dispatch.saved import Route, SavedException, saved_exception
from throwstack.exceptions.record import read_record
from throwstack.frames import StackBounds
from throwstack.memory import MemoryUnreadable
from throwstack.registers import Arch
from throwstack.target import Target

# CONTEXT_CONTROL and CONTEXT_INTEGER with any of the parts that Windows adds; the high byte may have
# CONTEXT_EXCEPTION_REPORTING and its kin (winnt.h). x86: bit 16; AMD64: bit 20.
_FLAGS = {
    Arch.X86: re.compile(rb"[\x03\x07\x0b\x0f\x13\x17\x1b\x1f\x23\x27\x2b\x2f\x33\x37\x3b\x3f\x7f]\0\x01[\0-\xff]"),
    Arch.X64: re.compile(rb"[\x03\x07\x0b\x0f\x13\x17\x1b\x1f\x5b\x5f]\0\x10[\0-\xff]"),
}
_FLAGS_AT = {Arch.X86: 0, Arch.X64: 0x30}
_IP_AT = {Arch.X86: 0xB8, Arch.X64: 0xF8}
_ADDRESS_IN_RECORD = {Arch.X86: 0xC, Arch.X64: 0x10}
_ALIGNMENT = {Arch.X86: 4, Arch.X64: 16}
_MAX_RECORDS = 64
_MAX_CONTEXTS = 1024
_MAX_FLAGS = 0xFF
_LOWEST_CODE = 0x40000000
_ALWAYS_SET, _EFLAGS_END = 2, 1 << 22


def context_offsets(data: bytes, arch: Arch) -> Iterator[int]:
    """Yield where in `data`, which begins at a page, a CONTEXT may start, by its ContextFlags alone."""
    for match in _FLAGS[arch].finditer(data):
        start = match.start() - _FLAGS_AT[arch]
        if not start % _ALIGNMENT[arch]:
            yield start


def scan_contexts(target: Target, stack: StackBounds, low: int) -> Iterator[SavedException]:
    """Yield the exceptions whose CONTEXT lies on the stack from `low` outwards, in stack order."""
    arch = target.arch
    low = (max(low, stack.limit) + 15) & -16
    data = target.memory.read_available(low, min(stack.base - low, MAX_BYTES))
    size = arch.pointer_size
    looked_at = 0
    for match in _FLAGS[arch].finditer(data):
        start = match.start() - _FLAGS_AT[arch]
        ip = data[start + _IP_AT[arch] : start + _IP_AT[arch] + size]
        if start < 0 or start % _ALIGNMENT[arch] or len(ip) < size or not any(ip):
            continue
        looked_at += 1
        if looked_at > _MAX_CONTEXTS:
            return
        for record in _records(data, ip, _ADDRESS_IN_RECORD[arch], size):
            if not _is_plausible_record(target, low + record):
                continue
            found = saved_exception(target, stack, low + record, low + start, route=Route.SCAN, frame_sp=low + start)
            if found is not None and _has_plausible_eflags(found.context):
                yield found
                break


def _records(data: bytes, ip: bytes, at: int, alignment: int) -> Iterator[int]:
    """Yield where in `data` a record with the instruction `ip` may start."""
    position = data.find(ip, at)
    for _ in range(_MAX_RECORDS):
        if position < 0:
            return
        if (position - at) % alignment == 0:
            yield position - at
        position = data.find(ip, position + 1)


def _is_plausible_record(target: Target, address: int) -> bool:
    """Say whether what lies at `address` has a record's flags, a code that Windows or a runtime raises, and no debris.

    The code is the word most easily mistaken: a small number or an address is none (0x4, 0x8 and 0xC begin NTSTATUS
    values, 0xE those of the C++ runtime and the CLR).
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
    """Say whether EFLAGS are such as user code can have: bit 1 is always set, and the upper ones never are."""
    return bool(context.eflags & _ALWAYS_SET) and context.eflags < _EFLAGS_END
