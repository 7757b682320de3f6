# SPDX-License-Identifier: Apache-2.0
"""The name of the machine, from the environment of its processes: `COMPUTERNAME`, which services and users have.

An environment is a block of UTF-16 texts `NAME=value`, each ended by a zero, and the last by two (Microsoft:
`GetEnvironmentStrings`), at `_RTL_USER_PROCESS_PARAMETERS.Environment`. A process can change its own, so the name is
the one that most of them have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.text import decode_wide, escape
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.memory.offsets import offset, take

_MAX_BYTES = 1 << 16
_MOST_PROCESSES = 32
_ENOUGH = 8
"""After how many processes with a name no more are looked at."""
_MAX_NAME = 64
_VARIABLE = "COMPUTERNAME="


@dataclass(frozen=True, slots=True)
class _Members:
    parameters: int | None = offset("_PEB.ProcessParameters", optional=True)
    environment: int | None = offset("_RTL_USER_PROCESS_PARAMETERS.Environment", optional=True)


def machine_name(machine: Machine, processes: Iterable[tuple[int, Memory]]) -> str:
    """Return the name of the machine, escaped, or "" if no process has it.

    `processes` are the address of the PEB and the memory of each.
    """
    members = take(_Members, machine.layout)
    if members.parameters is None or members.environment is None:
        return ""
    found: Counter[str] = Counter()
    for peb, memory in islice(processes, _MOST_PROCESSES):
        try:
            parameters = machine.pointer(memory, peb + members.parameters)
            address = machine.pointer(memory, parameters + members.environment)
            name = _name_in(memory.read_available(address, _MAX_BYTES) if address else b"")
        except MemoryUnreadable:
            continue
        found.update([name] if name else ())
        if found.total() >= _ENOUGH:
            break
    return escape(found.most_common(1)[0][0], _MAX_NAME) if found else ""


def _name_in(block: bytes) -> str:
    for text in decode_wide(block).partition("\0\0")[0].split("\0"):
        if text.upper().startswith(_VARIABLE):
            return text[len(_VARIABLE) :]
    return ""
