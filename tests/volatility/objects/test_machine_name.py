# SPDX-License-Identifier: Apache-2.0
"""The name of the machine, as its processes have it in their environments."""

from __future__ import annotations

from pathlib import Path

import pytest

import throwstack
from tests.forge.__main__ import forge
from tests.forge.cases import builders

COMMON = ("=C:=C:\\", "ALLUSERSPROFILE=C:\\ProgramData")


def name_with(tmp_path: Path, case: str, *environments: tuple[str, ...]) -> str:
    """Return the name that a report gives if the processes of a forged machine have these environments, in turn."""
    built = builders()[case][0]()
    users = [process for process in built.machine.processes if process.peb and process.threads and process.modules]
    for process, environment in zip(users, environments, strict=False):
        process.environment = environment
    forge(built, tmp_path)
    with throwstack.open(tmp_path / "MEMORY.DMP", symbols=tmp_path / "isf", offline=True) as dump:
        return dump.report().machine.name


@pytest.mark.parametrize("case", ["service-x64", "ftp-2003", "wow64-service"])
def test_the_name_is_in_the_environment(tmp_path, case):
    assert name_with(tmp_path, case, (*COMMON, "COMPUTERNAME=WEB-07", "OS=Windows_NT")) == "WEB-07"


def test_the_name_is_the_one_that_most_processes_have(tmp_path):
    liar = ("ComputerName=\x1b[31mLIAR",)
    assert name_with(tmp_path, "peers", liar, ("COMPUTERNAME=SQL1",), ("COMPUTERNAME=SQL1",)) == "SQL1"


def test_a_name_is_escaped_and_cut(tmp_path):
    assert name_with(tmp_path, "service-x64", (f"COMPUTERNAME=\x1b{'A' * 300}",)) == "\\x1b" + "A" * 60 + "…"


def test_without_an_environment_or_the_variable_there_is_no_name(tmp_path):
    assert name_with(tmp_path, "service-x64") == ""
    assert name_with(tmp_path / "b", "service-x64", COMMON) == ""
