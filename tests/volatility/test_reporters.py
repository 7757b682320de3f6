# SPDX-License-Identifier: Apache-2.0
"""Command lines of reporters, as Windows writes them, and a reporter in a dump."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.forge.__main__ import forge
from tests.forge.cases import builders
from tests.support.vol import vol
from throwstack.volatility.reporters import reported_pid


@pytest.mark.parametrize(
    ("name", "command_line", "pid"),
    [
        ("WerFault.exe", r"C:\Windows\system32\WerFault.exe -u -p 2564 -s 388", 2564),
        ("WerFault.exe", r"C:\Windows\SysWOW64\WerFault.exe -pss -s 484 -p 6700 -ip 6700", 6700),
        ("werfault.exe", "WerFault.exe /p 12 /s 4", 12),
        ("drwtsn32.exe", "drwtsn32 -p 2564 -e 388 -g", 2564),
        ("dumprep.exe", r"C:\WINDOWS\system32\dumprep.exe 2564 -dm 7 7 C:\a.mdmp 16325836", 2564),
        ("WerFault.exe", "WerFault.exe -k -lc", None),
        ("notepad.exe", "notepad.exe -p 2564", None),
        ("WerFault.exe", "", None),
        ("WerFault.exe", "-p 99999999999999999999", None),
    ],
)
def test_the_pid_in_a_reporters_command_line(name: str, command_line: str, pid: int | None):
    assert reported_pid(name, command_line) == pid


def test_the_row_names_the_process_that_reports(tmp_path: Path):
    case = builders()["service-x64"][0]()
    crashed = case.truth.stuck[0].pid
    template = next(process for process in case.machine.processes if process.pid == crashed)
    werfault = replace(
        template,
        pid=9900,
        name="WerFault.exe",
        command_line=rf"C:\Windows\system32\WerFault.exe -u -p {crashed} -s 388",
        threads=[],
        address=None,
        directory_base=None,
    )
    case.machine.processes.append(werfault)
    forge(case, tmp_path)
    rows = vol(tmp_path, "windows.unhandled").rows
    assert [row["TID"] for row in rows] == [stuck.tid for stuck in case.truth.stuck]
    assert all("WerFault.exe (PID 9900) reports on this process" in row["Notes"] for row in rows)
