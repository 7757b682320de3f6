# SPDX-License-Identifier: Apache-2.0
"""Reads EXCEPTION_RECORDs, which say what exception was raised, where, and with which parameters.

The layouts are EXCEPTION_RECORD32 and EXCEPTION_RECORD64 of winnt.h. A record may point to a second record, that of the
exception that was being handled when the first one was raised.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Arch

MAX_PARAMETERS = 15
"""The most parameters of a record (EXCEPTION_MAXIMUM_PARAMETERS)."""
MAX_CHAIN = 16
STACK_BUFFER_OVERRUN = 0xC0000409
"""The exception code of stack cookie failures, and since Windows 8 of every fast-fail."""
UNWINDING = 0x2 | 0x4
"""Flags of a record whose exception a handler has taken: EXCEPTION_UNWINDING, EXCEPTION_EXIT_UNWIND."""


@dataclass(frozen=True, slots=True)
class ExceptionRecord:
    """The contents of an EXCEPTION_RECORD.

    `address` is the address of the instruction that raised the exception, and `location` is the address of the record
    itself. `nested` is the address of the record to which this one points, or 0. `parameters` has at most 15 values.
    `declared_parameters` is the record's NumberParameters; if it is more than 15, the bytes are not a real record.
    """

    code: int
    flags: int
    address: int
    nested: int
    parameters: tuple[int, ...]
    location: int
    declared_parameters: int

    @property
    def is_well_formed(self) -> bool:
        """Say whether NumberParameters is at most 15, as in every real record."""
        return self.declared_parameters <= MAX_PARAMETERS


def read_record(memory: Memory, address: int, arch: Arch) -> ExceptionRecord:
    """Read the EXCEPTION_RECORD of architecture `arch` at `address`.

    Raises:
        MemoryUnreadable: the record or one of the parameters that it declares cannot be read.
    """
    head = arch.facts.record_head
    code, flags, nested, instruction, declared = head.unpack(memory.read(address, head.size))
    count = min(declared, MAX_PARAMETERS)
    size = arch.pointer_size
    data = memory.read(address + head.size, count * size) if count else b""
    parameters = struct.unpack(f"<{count}{'I' if size == 4 else 'Q'}", data)
    return ExceptionRecord(code, flags, instruction, nested, parameters, address, declared)


def nested_records(memory: Memory, record: ExceptionRecord, arch: Arch) -> tuple[ExceptionRecord, ...]:
    """Return the record to which `record` points, the record to which that one points, and so on.

    The chain ends at a null pointer, at unreadable memory, at bytes that cannot be a record, at a record that is
    already in the chain, or after 16 records.
    """
    chain: list[ExceptionRecord] = []
    seen = {record.location}
    following = record.nested
    while following and following not in seen and len(chain) < MAX_CHAIN:
        seen.add(following)
        try:
            found = read_record(memory, following, arch)
        except MemoryUnreadable:
            break
        if not (found.code and found.is_well_formed):
            break
        chain.append(found)
        following = found.nested
    return tuple(chain)
