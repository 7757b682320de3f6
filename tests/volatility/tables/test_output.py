# SPDX-License-Identifier: Apache-2.0
"""Which columns the plugins show to whom, and what is said on stderr."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.conftest import Forge
from tests.support.vol import vol
from throwstack.volatility.running_vol import RunningVol
from throwstack.volatility.tables.crash_table import CRASH_COLUMNS, CRASH_SHOWN
from throwstack.volatility.tables.output import Output

EVERY = [column.title for column in CRASH_COLUMNS]
SHOWN = list(CRASH_SHOWN)


def titles(text: str, between: str) -> list[str]:
    """Return the titles of a table that `quick` or `pretty` printed."""
    (line,) = (line for line in text.splitlines() if "Exception" in line and "Verdict" in line)
    return [title.strip() for title in line.split(between) if title.strip()]


def test_pretty_leaves_out_the_columns_that_are_empty_and_fits(forged: Forge):
    out, _ = forged("ftp-2003")
    for plugin in ("windows.unhandled", "windows.cxrstack", "windows.stackwalk"):
        text = vol(out, plugin, renderer="pretty").out
        assert max(map(len, text.splitlines())) <= 160
        if plugin == "windows.unhandled":
            assert titles(text, "|") == [title for title in SHOWN if title != "Notes"]


def test_wide_has_all_columns(forged: Forge):
    out, _ = forged("ftp-2003")
    text = vol(out, "windows.unhandled", "--wide", renderer="quick").out
    assert titles(text, "\t") == EVERY
    assert "\t0x8" in text, "ETHREAD and EPROCESS"


@pytest.mark.parametrize("wide", [(), ("--wide",)])
def test_programs_get_all_columns_always(forged: Forge, wide: tuple[str, ...]):
    out, _ = forged("ftp-2003")
    (row,) = vol(out, "windows.unhandled", *wide).rows
    assert sorted(row) == sorted([*EVERY, "__children"])
    (line,) = (
        json.loads(line) for line in vol(out, "windows.unhandled", *wide, renderer="jsonl").out.split("\n") if line
    )
    assert line == row
    table = csv.reader(io.StringIO(vol(out, "windows.unhandled", *wide, renderer="csv").out))
    assert next(table) == ["TreeDepth", *EVERY]
    text = vol(out, "windows.unhandled", *wide, renderer="mermaid").out
    assert [part.partition(":")[0] for part in text.partition('["')[2].split("<br>")] == EVERY


def test_filters_find_rows_by_columns_that_are_not_shown(forged: Forge):
    out, _ = forged("service-x64")
    text = vol(out, "windows.unhandled", renderer="quick", more=("--filters", "Code,0xc0000005")).out
    assert titles(text, "\t") == [*SHOWN, "Code"]
    assert (text.count("ledgersvc.exe"), text.count("0xc0000005")) == (1, 1)
    text = vol(out, "windows.unhandled", renderer="quick", more=("--filters", "KiUserExceptionDispatcher")).out
    assert (titles(text, "\t"), text.count("ledgersvc.exe")) == (EVERY, 1)
    text = vol(out, "windows.unhandled", renderer="pretty", more=("--filters", "Exception,missing")).out
    assert text.count("C++ ledger::config_error \"configuration value 'listen_port' is missing\"") == 1


def test_columns_can_be_hidden(forged: Forge):
    out, _ = forged("ftp-2003")
    text = vol(out, "windows.unhandled", renderer="pretty", more=("--hide-columns", "Sig", "Blocked", "-v")).out
    assert titles(text, "|") == ["PID", "Process", "TID", "Exception", "Thrown At", "Verdict"]


@pytest.mark.parametrize(
    ("running", "is_wide", "is_brief"),
    [
        (None, False, False),  # a program, volshell, timeliner
        (RunningVol("quick"), False, True),
        (RunningVol("pretty"), True, False),
        (RunningVol("csv"), False, False),
        (RunningVol("somebodys"), False, False),
        (RunningVol("quick", filters=("TID,2792",)), False, True),
        (RunningVol("quick", filters=("2792",)), False, False),
    ],
)
def test_who_sees_what_fits(running: RunningVol | None, is_wide: bool, is_brief: bool):
    assert Output(running, is_wide=is_wide).is_brief is is_brief


def test_an_empty_table_is_explained_and_json_stays_empty(forged: Forge):
    out, _ = forged("quiet")
    done = vol(out, "windows.cxrstack")
    assert done.rows == []
    assert done.err.splitlines()[-1] == "3 processes, 10 threads examined: none is stuck"
    out, _ = forged("deadlock")
    done = vol(out, "windows.unhandled", renderer="pretty")
    assert "2 processes, 8 threads examined: none is stuck; 5 threads wait in deadlocks (windows.stackwalk)" in done.err


def test_what_was_asked_for_and_is_not_there_hides_nothing(forged: Forge):
    out, _ = forged("quiet")
    assert vol(out, "windows.unhandled", "--pid", "4242").err.splitlines()[-1] == (
        "0 processes, 0 threads examined: what was asked for is not there"
    )


def test_a_thread_that_is_not_stuck_is_named(forged: Forge):
    out, _ = forged("ftp-2003")
    done = vol(out, "windows.cxrstack", "--tid", "a08")
    assert done.rows == []
    assert "thread 2568 is not stuck on an exception: windows.stackwalk --tid 2568" in done.err


def test_an_address_without_a_process_is_one_message(forged: Forge):
    out, _ = forged("ftp-2003")
    done = vol(out, "windows.cxrstack", "--cxr", "77e4bee7")
    assert done.rows == []
    (line,) = (line for line in done.err.splitlines() if "77e4bee7" in line)
    assert line.startswith(
        "4 processes looked at: none has a user-mode CONTEXT at 0x77e4bee7: give the process with --pid"
    )


def test_a_process_is_found_by_its_name_with_or_without_exe(forged: Forge):
    out, _ = forged("ftp-2003")
    for name in ("iftpsvc", "IFTPSVC.exe"):
        assert [row["PID"] for row in vol(out, "windows.unhandled", "--process", name).rows] == [2564]


@pytest.mark.parametrize("renderer", ["quick", "pretty", "json", "csv"])
def test_progress_ends_at_100_before_the_first_row_where_both_go_to_one_screen(forged: Forge, renderer: str):
    out, _ = forged("service-x64")
    text = vol(out, "windows.unhandled", renderer=renderer, is_quiet=False, is_one_stream=True).out
    progress, _, rows = text.rpartition("Progress:  100.00")
    assert "ledgersvc.exe (5304)" in progress
    assert "Progress" not in rows
    assert rows.count("ledgersvc.exe") == 2
