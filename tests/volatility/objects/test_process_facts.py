# SPDX-License-Identifier: Apache-2.0
"""What EPROCESS, PEB and token say of a process, on a machine of 32 and of 64 bits."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from tests.forge.__main__ import forge
from tests.forge.cases import builders
from throwstack.volatility.dump import Dump
from throwstack.volatility.objects.process_facts import ProcessFactsReader
from throwstack.volatility.survey import Selection, Survey

SID = "S-1-5-21-1004336348-1177238915-682003330-1001"


@pytest.mark.parametrize("name", ["ftp-2003", "service-x64"])
def test_the_facts_of_a_process(tmp_path: Path, name: str):
    case = builders()[name][0]()
    given = next(process for process in case.machine.processes if process.pid == case.truth.stuck[0].pid)
    given.command_line, given.session, given.user_sid, given.token = '"C:\\app dir\\app.exe" -s', 3, SID, None
    forge(case, tmp_path)
    with Dump(tmp_path / "MEMORY.DMP", symbols=tmp_path / "isf", symbol_path="", offline=True) as dump:
        machine = dump._machine
        (process,) = Survey(machine, Selection(pids=[given.pid])).processes()
        facts = ProcessFactsReader(machine).read(process.address, process.peb, process.memory)
    assert (facts.command_line, facts.session, facts.user) == ('"C:\\app dir\\app.exe" -s', 3, SID)
    assert facts.parent == given.ppid
    booted = datetime.datetime(1601, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(
        microseconds=case.machine.system_time // 10 - case.machine.tick_count * 15625
    )
    assert facts.created == booted + datetime.timedelta(seconds=given.create_seconds)
