# SPDX-License-Identifier: Apache-2.0
"""Identifiers as a user of WinDbg writes them, and options that every command has."""

from __future__ import annotations

import argparse

import pytest

from throwstack.cli.dump_options import add_selection_options, identifier
from throwstack.cli.exit_status import ExitStatus
from throwstack.cli.main import main


def test_what_is_no_identifier_is_wrong_usage() -> None:
    assert identifier("a04") == 0xA04
    with pytest.raises(argparse.ArgumentTypeError):
        identifier("ftp")


@pytest.mark.parametrize("by_name", [True, False])
def test_processes_by_name_where_a_command_looks_at_names(by_name: bool) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_selection_options(parser, by_name=by_name)
    given = ["--pid", "a04", "8", *(["--process", "iftpsvc", "app.exe"] if by_name else [])]
    options = parser.parse_args(given)
    assert options.pid == [0xA04, 8]
    assert getattr(options, "process", None) == (["iftpsvc", "app.exe"] if by_name else None)


def test_page_files_are_files(tmp_path, capsys) -> None:
    assert main(["doctor", "MEMORY.DMP", "--page-file", str(tmp_path)]) == ExitStatus.WRONG_USAGE
    assert f"--page-file: {tmp_path} is not a file" in capsys.readouterr().err


def test_directories_of_symbols_are_there(tmp_path, capsys) -> None:
    gone = tmp_path / "gone"
    assert main(["doctor", "MEMORY.DMP", "-s", str(gone)]) == ExitStatus.WRONG_USAGE
    assert f"-s: there is no {gone}" in capsys.readouterr().err
    path = f"{gone};{tmp_path};srv*{tmp_path / 'cache'}*https://example.org"
    assert main(["report", str(tmp_path / "none.dmp"), "--symbol-path", path]) == ExitStatus.CANNOT
    assert capsys.readouterr().err.splitlines() == [
        f"throwstack report: --symbol-path: there is no directory {gone}",
        f"throwstack report: {tmp_path / 'none.dmp'}: No such file or directory",
    ]


def test_a_dump_after_a_list_of_numbers_is_no_number(tmp_path, capsys) -> None:
    dump = tmp_path / "MEMORY.DMP"
    dump.touch()
    assert main(["report", "--pid", "2564", str(dump)]) == ExitStatus.WRONG_USAGE
    usage, error = capsys.readouterr().err.splitlines()
    assert usage == "usage: throwstack report MEMORY.DMP [option ...]"
    assert error.endswith(f"--pid: {dump} is a file, and no number: the dump goes before this option")
