# SPDX-License-Identifier: Apache-2.0
"""What the .NET runtimes of a machine's processes look like: structures alone, for `throwstack doctor --dotnet`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from throwstack.core.sides import Side
from throwstack.managed.structure_summary import StructureSummary, structure_summary, why_overlooked, without_data
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.processes import Process, ProcessReader


@dataclass(frozen=True, slots=True)
class DotnetProcess:
    """A process with a runtime, or a side of it; without a `summary` the reason why a runtime may be overlooked.

    Nothing in it is data of the process: no name, no address.
    """

    pid: int
    side: Side
    summary: StructureSummary | None
    reason: str = ""


def dotnet_structures(machine: Machine, problems: list[str]) -> Iterator[DotnetProcess]:
    """Yield each process of the machine that has a runtime, or may have one that cannot be found.

    A sentence is added to `problems` for each process that cannot be examined, and if the list of them breaks off.
    """

    def note(what: str, reason: str) -> None:
        problems.append(f"{what}: {without_data(reason)}")

    reader = ProcessReader(machine)
    breaks_off = guarded(partial(note, "the kernel's list of processes breaks off"))
    for item in breaks_off.each(machine.processes()):
        found: list[DotnetProcess] = []
        with guarded(partial(note, "a process cannot be examined")):
            process = reader.open(item)
            found = [] if process is None else _sides(process)
        yield from found


def _sides(process: Process) -> list[DotnetProcess]:
    tids = [thread.tid for thread in process.threads if not thread.is_terminated]
    found = []
    for side, code in process.managed.items():
        summary, reason = structure_summary(code, tids), why_overlooked(code)
        if summary is not None or reason:
            found.append(DotnetProcess(process.pid, side, summary, reason))
    return found
