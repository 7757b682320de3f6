# SPDX-License-Identifier: Apache-2.0
"""EXCEPTION_RECORD: what was raised, where, and with which parameters.

Layouts of EXCEPTION_RECORD32 and EXCEPTION_RECORD64 in winnt.h. A record may point to another one: the exception
that was being handled when this one was raised.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.registers import Arch

MAX_PARAMETERS = 15
"""EXCEPTION_MAXIMUM_PARAMETERS."""
MAX_CHAIN = 16
STACK_BUFFER_OVERRUN = 0xC0000409
"""The code of stack cookie failures, and since Windows 8 of every fast-fail."""


@dataclass(frozen=True, slots=True)
class ExceptionRecord:
    """One record: its code and flags, the instruction (`address`), its parameters, and where the record lies.

    `nested` points to the next record or is 0. `parameters` holds at most 15 values, `declared_parameters` what the
    record says there are: a larger figure is a sign that this is no record.
    """

    code: int
    flags: int
    address: int
    nested: int
    parameters: tuple[int, ...]
    location: int
    declared_parameters: int

    @property
    def is_noncontinuable(self) -> bool:
        """Say whether EXCEPTION_NONCONTINUABLE is set."""
        return bool(self.flags & 1)

    @property
    def is_well_formed(self) -> bool:
        """Say whether the number of parameters is one that a record can have."""
        return self.declared_parameters <= MAX_PARAMETERS


def read_record(memory: Memory, address: int, arch: Arch) -> ExceptionRecord:
    """Read the record at `address`.

    Raises:
        MemoryUnreadable: the record, or one of the parameters it declares, is not there.
    """
    head = arch.facts.record_head
    code, flags, nested, instruction, declared = head.unpack(memory.read(address, head.size))
    count = min(declared, MAX_PARAMETERS)
    size = arch.pointer_size
    data = memory.read(address + head.size, count * size) if count else b""
    parameters = struct.unpack(f"<{count}{'I' if size == 4 else 'Q'}", data)
    return ExceptionRecord(code, flags, instruction, nested, parameters, address, declared)


def nested_records(memory: Memory, record: ExceptionRecord, arch: Arch) -> tuple[ExceptionRecord, ...]:
    """Return the records that `record` leads to, nearest first.

    The chain ends at a null pointer, at memory that is not there, at a record that cannot be one, where it comes
    back to itself, and after 16.
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
