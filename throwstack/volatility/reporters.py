# SPDX-License-Identifier: Apache-2.0
"""Finds processes that report on a crashed process: WerFault, Dr. Watson, dumprep.

Their command lines contain the PID of the crashed process: `WerFault.exe -u -p 2564 -s 388`, `drwtsn32 -p 2564 -e 388
-g`, `dumprep 2564 -dm 7 7 …`.
"""

from __future__ import annotations

import logging
import re
from functools import cached_property

from volatility3.framework import interfaces

from throwstack.core.text import escape
from throwstack.volatility.memory.guarded import guarded
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.objects.process_facts import ProcessFactsReader
from throwstack.volatility.processes import ProcessReader

log = logging.getLogger(__name__)

_OPTION = re.compile(r"\s[-/]p\s+(\d{1,10})\b", re.IGNORECASE)
_FIRST_NUMBER = re.compile(r"\s(\d{1,10})\b")
_FORMS = {"werfault.exe": _OPTION, "werfaultsecure.": _OPTION, "drwtsn32.exe": _OPTION, "dumprep.exe": _FIRST_NUMBER}
"""The pattern of the PID in each reporter's command line, by image name. The kernel keeps 14 or 15 characters of it."""
_NAME_LENGTH = 14


def reported_pid(image_name: str, command_line: str) -> int | None:
    """Return the PID that a reporter's command line names, or None if it names none or the program is no reporter."""
    form = _form(image_name)
    found = None if form is None else form.search(command_line)
    return int(found[1]) if found else None


def _form(image_name: str) -> re.Pattern[str] | None:
    """Return the pattern for the reported PID in a program's command line, or None if the program is no reporter."""
    name = image_name.lower()[:_NAME_LENGTH]
    return next((form for known, form in _FORMS.items() if name == known[:_NAME_LENGTH]), None)


class Reporters:
    """Finds the processes of a machine that report on other processes."""

    def __init__(self, machine: Machine, reader: ProcessReader) -> None:
        """Keep `machine` and the `reader` of its processes. The processes are examined on first use."""
        self._machine = machine
        self._reader = reader

    def note(self, pid: int) -> str:
        """Return `WerFault.exe (PID 900) reports on this process` for the process `pid`, or "" without a reporter."""
        return self._notes.get(pid, "")

    @cached_property
    def _notes(self) -> dict[int, str]:
        notes: dict[int, str] = {}
        facts = ProcessFactsReader(self._machine)
        guard = guarded(lambda reason: log.info("a process may be one that reports on others: %s", reason))
        for item in guard.each(self._machine.processes()):
            with guard:
                notes.update(self._reported(item, facts))
        return notes

    def _reported(self, item: interfaces.objects.ObjectInterface, facts: ProcessFactsReader) -> dict[int, str]:
        """Return the PID of the process that `item` (an EPROCESS) reports on, with the note for it; empty if none."""
        name, _ = self._reader.identity(self._machine.canonical(item.vol.offset))
        process = None if _form(name) is None else self._reader.open(item)
        if process is None:
            return {}
        pid = reported_pid(name, facts.command_line(process.peb, process.memory))
        return {} if pid is None else {pid: f"{escape(name)} (PID {process.pid}) reports on this process"}
