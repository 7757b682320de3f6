# SPDX-License-Identifier: Apache-2.0
"""`throwstack doctor --dotnet`: what the structures of a runtime look like, and none of the dump's contents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Forge
from tests.support.managed_heap import APP, STACK, ForgedRuntime, Style
from tests.support.managed_machine import PID, dump_of
from throwstack.cli.exit_status import ExitStatus
from throwstack.cli.main import main

SECRET = "the password of the shop"


def dotnet_dump(style: Style, out: Path) -> Path:
    """Write the dump of a process in which one of two threads threw."""
    process = ForgedRuntime(style)
    stack = process.trace((APP + 0x10, STACK, process.types["Shop.Program"].methods["Main"], 0))
    order = process.exception("Shop.OrderException", SECRET, _stackTrace=stack)
    threads = {0x14: process.thread(0x14, order, SECRET), 0x18: process.thread(0x18)}
    return dump_of(process, threads, out)


@pytest.mark.parametrize("style", [Style.FRAMEWORK_4, Style.CONTRACT])
def test_versions_offsets_and_counts_are_told_and_no_strings_names_or_paths(
    style: Style, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = dotnet_dump(style, tmp_path)
    command = ["doctor", str(dump), "-s", str(tmp_path / "isf"), "--dotnet"]
    assert main(command) == ExitStatus.DONE
    text = capsys.readouterr().out
    assert main([*command, "--json", "-"]) == ExitStatus.DONE
    report = json.loads(capsys.readouterr().out)
    assert (report["windows_build"], report["problems"]) == (19041, [])
    (found,) = report["processes"]
    assert (found["pid"], found["side"], found["runtime"]["file"]["name"]) == (PID, "native", style.runtime)
    counts = found["runtime"]["counts"]
    assert (counts["threads"], counts["threads with an exception"], counts["exceptions with a message"]) == (2, 1, 1)
    assert f"process {PID}, native" in text.splitlines()
    assert any(line.startswith("  id and TEB in a Thread: at ") for line in text.splitlines())
    for printed in (text, json.dumps(report)):
        for private in (SECRET, "Shop", "shop", "password", "windows\\", str(tmp_path), f"{STACK:x}"):
            assert private not in printed


def test_a_dump_without_a_runtime_says_so(forged: Forge, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = forged("service-x64")
    assert main(["doctor", str(out / "MEMORY.DMP"), "-s", str(out / "isf"), "--dotnet"]) == ExitStatus.NOTHING
    assert "no process with a .NET runtime" in capsys.readouterr().out.splitlines()


def test_a_file_that_is_no_dump_cannot_be_examined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a dump")
    assert main(["doctor", str(file), "--dotnet", "--json", "-"]) == ExitStatus.CANNOT
    report = json.loads(capsys.readouterr().out)
    assert report["processes"] == []
    assert "no kernel was found in it" in report["problems"]
