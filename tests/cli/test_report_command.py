# SPDX-License-Identifier: Apache-2.0
"""`throwstack report` as a user runs it: its exit statuses, the files it writes, and what goes to which stream."""

from __future__ import annotations

import json
import signal
import sys
import types
from pathlib import Path

import pytest

import throwstack
from tests.conftest import Forge
from throwstack.cli.exit_status import ExitStatus
from throwstack.cli.main import main
from throwstack.cli.report_command import status_of
from throwstack.report.dump_report import (
    DumpReport,
    Examined,
    FileReport,
    MachineReport,
    ReportWarning,
    UnexaminedProcess,
    WarningCode,
)


def arguments(out: Path, *more: str) -> list[str]:
    return ["report", str(out / "MEMORY.DMP"), "-s", str(out / "isf"), "--symbol-path", "", "--offline", *more]


@pytest.fixture
def crashed(forged: Forge) -> Path:
    return forged("service-x64")[0]


@pytest.fixture
def quiet(forged: Forge) -> Path:
    return forged("quiet")[0]


def test_0_when_threads_are_stuck(crashed: Path, capsys: pytest.CaptureFixture[str]):
    assert main(arguments(crashed)) == 0
    printed = capsys.readouterr()
    assert "thread 5320 = 0x14c8: crashed and waiting for WER" in printed.out
    assert printed.err == ""
    assert "\x1b" not in printed.out, "no colours where nobody sees them"


def test_1_when_nobody_is_stuck(quiet: Path, capsys: pytest.CaptureFixture[str]):
    assert main(arguments(quiet)) == 1
    assert "none is stuck" in capsys.readouterr().out


def test_1_when_the_process_that_was_asked_for_is_not_there(crashed: Path, capsys: pytest.CaptureFixture[str]):
    assert main(arguments(crashed, "--pid", "4242")) == 1
    assert "there is no process with PID 4242" in capsys.readouterr().out


def test_2_when_the_dump_cannot_be_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "MEMORY.DMP").write_bytes(b"MZ" * 5000)
    (tmp_path / "isf").mkdir()
    assert main(arguments(tmp_path)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("throwstack report: ")
    assert len(printed.err.splitlines()) == 1


def test_2_when_a_file_is_there_already_and_nothing_is_examined(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It is said before the work, which may take minutes: there is not even a dump here."""
    (tmp_path / "report.json").write_text("kept", "utf-8")
    (tmp_path / "isf").mkdir()
    assert main(arguments(tmp_path, "--json", str(tmp_path / "report.json"))) == 2
    assert "report.json is there already: --force overwrites it" in capsys.readouterr().err
    assert (tmp_path / "report.json").read_text("utf-8") == "kept"


@pytest.mark.parametrize("size", [0x3000, 0x10000])
def test_2_when_a_dump_is_cut_off_before_its_kernel(
    forged: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int
):
    """Whether Volatility is asked or not: the reason is that the dump is cut off."""
    out, _ = forged("ftp-2003")
    (tmp_path / "MEMORY.DMP").write_bytes((out / "MEMORY.DMP").read_bytes()[:size])
    (tmp_path / "isf").symlink_to(out / "isf")
    assert main(arguments(tmp_path)) == 2
    assert "; the dump is cut off: 9" in capsys.readouterr().err


def test_3_when_the_dump_is_cut_off(crashed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    whole = (crashed / "MEMORY.DMP").read_bytes()
    (tmp_path / "MEMORY.DMP").write_bytes(whole[:-0x3000])
    (tmp_path / "isf").symlink_to(crashed / "isf")
    assert main(arguments(tmp_path)) == 3
    assert "CUT OFF: 3 pages missing at its end" in capsys.readouterr().out


def test_64_for_wrong_usage(capsys: pytest.CaptureFixture[str]):
    assert main(["report", "--pid", "iftpsvc.exe", "MEMORY.DMP"]) == 64
    assert "usage: throwstack report" in capsys.readouterr().err


def test_130_when_interrupted(crashed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def interrupt(_report: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("throwstack.cli.report_command.status_of", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        assert main(arguments(crashed)) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "throwstack: interrupted\n"


WHOLE = FileReport("MEMORY.DMP", 1, "crash-dump", "", expected_pages=9, missing_pages=0)


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (DumpReport("1.1", WHOLE, MachineReport("Windows", "x64"), Examined(1, 1)), ExitStatus.NOTHING),
        (
            DumpReport(
                "1.1",
                WHOLE,
                MachineReport("Windows", "x64"),
                Examined(1, 1),
                warnings=(ReportWarning(WarningCode.STACK, "a stack is not there"),),
            ),
            ExitStatus.IN_PART,
        ),
        (
            DumpReport(
                "1.1",
                WHOLE,
                MachineReport("Windows", "x64"),
                Examined(),
                unexamined=(UnexaminedProcess("it has no PEB"),),
            ),
            ExitStatus.IN_PART,
        ),
    ],
)
def test_what_may_hide_a_crash_decides(report: DumpReport, status: ExitStatus):
    assert status_of(report) is status


def test_json_goes_into_a_file_and_the_text_to_standard_output(
    crashed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    target = tmp_path / "report.json"
    assert main(arguments(crashed, "--json", str(target))) == 0
    assert json.loads(target.read_text("utf-8"))["crashes"][0]["tid"] == 5320
    assert capsys.readouterr().out.startswith("MEMORY.DMP    Windows 10 x64")
    assert main(arguments(crashed, "--json", str(target))) == 2
    assert main(arguments(crashed, "--json", str(target), "--force", "--quiet")) == 0
    assert capsys.readouterr().out == ""
    assert [one.name for one in tmp_path.iterdir()] == ["report.json"], "nothing is left beside it"


def test_json_on_standard_output_is_all_that_is_there(crashed: Path, capsys: pytest.CaptureFixture[str]):
    assert main(arguments(crashed, "--json", "-")) == 0
    assert json.loads(capsys.readouterr().out)["schema_version"] == "1.1"


def test_the_page_is_what_the_page_maker_gives(
    crashed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    maker = types.ModuleType("throwstack.report.page.report_page")
    maker.page_of = lambda report, version: f"<html>{len(report.crashes)} crashes by {version}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "throwstack.report.page", types.ModuleType("throwstack.report.page"))
    monkeypatch.setitem(sys.modules, "throwstack.report.page.report_page", maker)
    assert main(arguments(crashed, "--quiet", "--html", str(tmp_path / "report.html"))) == 0
    assert (tmp_path / "report.html").read_text("utf-8") == f"<html>2 crashes by {throwstack.__version__}"
    assert capsys.readouterr().out == ""


def test_the_page_on_standard_output_is_all_that_is_there(crashed: Path, capsys: pytest.CaptureFixture[str]):
    assert main(arguments(crashed, "--html", "-")) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("<!doctype html>")
    assert printed.endswith("</html>\n")


def test_two_results_cannot_be_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "isf").mkdir()
    assert main(arguments(tmp_path, "--json", "-", "--html", "-")) == 64
    assert "only one of them can go to standard output" in capsys.readouterr().err
    both = str(tmp_path / "both")
    assert main(arguments(tmp_path, "--json", both, "--html", both, "--force")) == 2
    assert "both is named for two results" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "doctor"])
def test_a_dump_is_not_overwritten_by_what_is_said_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
):
    dump, link = tmp_path / "MEMORY.DMP", tmp_path / "link"
    dump.write_text("evidence", "utf-8")
    link.symlink_to(dump)
    assert main([command, str(dump), "--json", str(link), "--force"]) == 2
    assert "link is what is to be examined" in capsys.readouterr().err
    assert dump.read_text("utf-8") == "evidence"
