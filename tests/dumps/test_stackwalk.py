# SPDX-License-Identifier: Apache-2.0
"""`windows.stackwalk` on forged dumps: whole stacks, what threads wait for, how stacks are found and folded."""

from __future__ import annotations

import csv
import io
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Forge
from tests.forge.__main__ import forge
from tests.forge.cases import deadlock
from tests.forge.describe import WaitObject
from tests.forge.truth import Truth, TruthFrame
from tests.support.vol import vol

KERNEL_FRAMES = 6
"""Of each waiting thread of the reference case's machine, at most."""
FRAME_COLUMNS = ("Frame", "Child-SP", "RetAddr", "Args", "IP", "Call Site")


def expected_stacks(truth: Truth) -> dict[tuple[int, int], tuple[TruthFrame, ...]]:
    """The whole stacks that the truth has, by process and thread id."""
    stacks = {tuple(map(int, key.split(":"))): frames for key, frames in truth.stacks.items()}
    return {**stacks, **{(stuck.pid, stuck.tid): stuck.thread_stack for stuck in truth.stuck}}


def shown(frames: tuple[TruthFrame, ...]) -> list[dict[str, Any]]:
    """The columns of frames that the truth fixes."""
    return [
        {
            "Frame": index,
            "Child-SP": frame.child_sp,
            "RetAddr": frame.return_address,
            "Args": None if frame.args is None else " ".join(f"{word:08x}" for word in frame.args),
            "IP": frame.ip,
            "Call Site": frame.symbol,
        }
        for index, frame in enumerate(frames)
    ]


def stacks_in(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The frames under each thread's row, with the wanted columns."""
    return {
        (row["PID"], row["TID"]): [{name: frame[name] for name in columns} for frame in row["__children"]]
        for row in rows
    }


@pytest.mark.parametrize(("case", "count"), [("ftp-2003", 10), ("service-x64", 7), ("deadlock", 8), ("peers", 200)])
def test_every_stack_equals_the_truth(forged: Forge, case: str, count: int):
    out, truth = forged(case)
    expected = {key: shown(frames) for key, frames in expected_stacks(truth).items()}
    found = stacks_in(vol(out, "windows.stackwalk").rows, FRAME_COLUMNS)
    assert len(expected) == count
    assert found == expected


def test_the_32_bit_stack_of_a_wow64_thread_equals_the_truth(forged: Forge):
    out, truth = forged("wow64-service")
    (row,) = vol(out, "windows.stackwalk").rows
    assert {frame["Side"] for frame in row["__children"]} == {"kernel", "x86"}
    found = [frame["Call Site"] for frame in row["__children"] if frame["Side"] == "x86"]
    assert found == [frame.symbol for frame in truth.stuck[0].thread_stack]


def test_csv_lines_say_whose_frame_they_are(forged: Forge):
    out, truth = forged("ftp-2003")
    text = vol(out, "windows.stackwalk", "--pid", "2564", "--tid", "2792", renderer="csv").out
    lines = list(csv.DictReader(io.StringIO(text)))
    assert {(line["PID"], line["TID"]) for line in lines} == {("2564", "2792")}
    assert [line["Call Site"] for line in lines[1:]] == [frame.symbol for frame in truth.stuck[0].thread_stack]


def test_a_thread_reads_as_in_the_transcript(forged: Forge):
    out, _ = forged("ftp-2003")
    (row,) = vol(out, "windows.stackwalk", "--pid", "2564", "--tid", "2792").rows
    assert (row["State"], row["Wait Reason"], row["Wait Mode"], row["Alertable"]) == (
        "Waiting",
        "UserRequest",
        "UserMode",
        True,
    )
    assert row["Waits For"] == (
        "8948fcb0 NotificationEvent, 898f1b88 SynchronizationEvent, 89e3d490 NotificationTimer due in 0:01:19.687"
    )
    assert (row["Wait Ticks"], row["Wait Seconds"]) == (20, 0.3125)
    assert (row["Kernel Seconds"], row["User Seconds"], row["Context Switches"]) == (0.0, 0.0, 24)
    assert (row["Priority"], row["Base Priority"], row["Priority Decrement"]) == (10, 8, 0)
    assert (row["Start Address"], row["Start"]) == (0x77E617EC, "KERNEL32!BaseThreadStartThunk")
    assert (row["Win32 Start Address"], row["Win32 Start"]) == (0x781329E1, "MSVCR80!_endthreadex+0x61")
    assert (row["ETHREAD"], row["TEB"], row["Win32Thread"]) == (0x89E3D418, 0x7FFAD000, 0xE26A6508)
    assert (row["Kernel Stack Init"], row["Kernel Stack Current"]) == (0xB8FDF000, 0xB8FDE900)
    assert (row["Kernel Stack Base"], row["Kernel Stack Limit"]) == (0xB8FDF000, 0xB8FDB000)
    assert (row["Stack Base"], row["Stack Limit"], row["Large Stack"]) == (0x045C0000, 0x045B6000, True)
    assert (row["Suspend Count"], row["Freeze Count"]) == (0, 0)
    assert (row["Lock"], row["Deadlock"], row["Notes"]) == (None, None, "")


def test_the_frame_that_entered_the_kernel_is_marked(forged: Forge):
    out, _ = forged("ftp-2003")
    (row,) = vol(out, "windows.stackwalk", "--pid", "2564", "--tid", "2792").rows
    frames = row["__children"]
    assert [frame["Side"] for frame in frames] == ["kernel"] * KERNEL_FRAMES + ["x86"] * (len(frames) - KERNEL_FRAMES)
    assert frames[KERNEL_FRAMES - 1]["Call Site"] == "nt!KiFastCallEntry+0xfc"
    assert frames[KERNEL_FRAMES - 1]["Notes"] == "trap frame at 0xb8fded64"


def deadlocks(rows: list[dict[str, Any]]) -> dict[int, str | None]:
    return {row["TID"]: row["Deadlock"] for row in rows}


def test_threads_that_wait_for_each_other_are_called_a_deadlock(forged: Forge):
    out, _ = forged("deadlock")
    rows = vol(out, "windows.stackwalk").rows
    assert deadlocks(rows) == {
        1504: "deadlock 1500:1504 -> 1500:1508 -> 1500:1504",
        1508: "deadlock 1500:1508 -> 1500:1504 -> 1500:1508",
        1512: "waits behind deadlock 1500:1504 -> 1500:1508 -> 1500:1504",
        1516: None,
        1520: "deadlock 1500:1520 -> 1776:1780 -> 1500:1520",
        1524: None,
        1780: "deadlock 1776:1780 -> 1500:1520 -> 1776:1780",
        1784: None,
    }
    locks = {row["TID"]: row["Lock"] for row in rows if row["Lock"] is not None}
    assert locks == {
        1504: "critical section 0x407020 ledgerd!g_accounts, owned by thread 1508, 1 waiting",
        1508: "critical section 0x407008 ledgerd!g_journal, owned by thread 1504, 2 waiting",
        1512: "critical section 0x407008 ledgerd!g_journal, owned by thread 1504, 2 waiting",
        1516: "critical section 0x407038 ledgerd!g_archive, owned by thread 2544, which no longer exists, 1 waiting",
    }
    waits = {row["TID"]: row["Waits For"].split(" ", 1)[1] for row in rows}
    assert waits[1520] == 'Mutant "LedgerSettled" owned by 1776:1780'
    assert waits[1780] == "Mutant owned by 1500:1520"
    assert waits[1784] == "Thread 1500:1524"


def test_a_deadlock_of_three_threads_over_critical_sections_and_a_mutex(tmp_path: Path):
    """TRANSFER waits for a section of POSTING, that one for a section of SETTLING, that one for a mutex of TRANSFER."""
    case = deadlock.build()
    process = case.machine.processes[0]
    journal = 0x407008
    data = next(region for region in process.regions if region.base <= journal < region.base + len(region.data))
    owner = journal - data.base + 0xC
    data.data = data.data[:owner] + struct.pack("<I", deadlock.SETTLING) + data.data[owner + 4 :]
    settling = next(thread for thread in process.threads if thread.tid == deadlock.SETTLING)
    settling.wait_objects = [WaitObject(2, owner=deadlock.TRANSFER)]
    forge(case, tmp_path)
    found = deadlocks(vol(tmp_path, "windows.stackwalk").rows)
    ring = [f"{deadlock.LEDGER}:{tid}" for tid in (deadlock.TRANSFER, deadlock.POSTING, deadlock.SETTLING)]
    for index in range(3):
        turned = [*ring[index:], *ring[:index], ring[index]]
        assert found[int(ring[index].partition(":")[2])] == f"deadlock {' -> '.join(turned)}"
    assert found[deadlock.CLOSING].startswith("waits behind deadlock ")
    assert found[deadlock.REPORT].startswith("waits behind deadlock ")


def test_a_deadlock_is_followed_out_of_the_selection(forged: Forge):
    out, _ = forged("deadlock")
    rows = vol(out, "windows.stackwalk", "--process", "REPORTD.exe", "--tid", "1780").rows
    assert deadlocks(rows) == {1780: "deadlock 1776:1780 -> 1500:1520 -> 1776:1780"}


def test_stacks_are_found_by_a_call_site(forged: Forge):
    out, _ = forged("ftp-2003")
    rows = vol(out, "windows.stackwalk", "--findstack", "mscorwks!.*waitforendofshutdown").rows
    assert [row["TID"] for row in rows] == [2792]
    done = vol(out, "windows.stackwalk", "--findstack", "no such function")
    assert (done.status, done.rows) == (0, [])


def test_a_bad_pattern_is_refused_in_one_line(forged: Forge):
    out, _ = forged("ftp-2003")
    done = vol(out, "windows.stackwalk", "--findstack", "Wait(")
    assert (done.status, done.rows) == (0, [])
    (line,) = [line for line in done.err.splitlines() if "findstack" in line]
    assert "'Wait(' is not a regular expression" in line
    assert "Traceback" not in done.err


def test_equal_stacks_are_folded(forged: Forge):
    out, truth = forged("ftp-2003")
    rows = vol(out, "windows.stackwalk", "--unique").rows
    # Each of three services has two threads that wait for work and one that sleeps; their programs' names differ.
    assert [row["Threads"] for row in rows] == [2, 2, 2, 1, 1, 1, 1]
    assert (rows[0]["TID"], rows[0]["Same Stack"]) == (1952, "1948:1960")
    assert sum(row["Threads"] for row in rows) == len(truth.quiet) + len(truth.stuck)


def test_processes_are_selected_by_name(forged: Forge):
    out, _ = forged("ftp-2003")
    assert {row["PID"] for row in vol(out, "windows.stackwalk", "--process", "sshserver.exe").rows} == {2032}
    done = vol(out, "windows.stackwalk", "--process", "nobody.exe")
    assert (done.status, done.rows) == (0, [])
    assert "there is no process called nobody.exe" in done.err


def test_the_brief_form_says_of_a_thread_all_in_one_sentence(forged: Forge):
    out, _ = forged("deadlock")
    (row,) = vol(out, "windows.stackwalk", "--brief", "--tid", "1516").rows
    assert "State" not in row
    assert row["Notes"].startswith("Waiting (UserRequest, UserMode) for 1218 ticks (0:00:19.031) on ")
    assert row["Notes"].endswith(
        "; critical section 0x407038 ledgerd!g_archive, owned by thread 2544, which no longer exists, 1 waiting"
        "; start ledgerd!Audit; priority 8 (base 8); kernel time 0:00:00.000; user time 0:00:00.000"
    )


def test_windows_stackwalk_makes_no_other_plugins_short_name_ambiguous(forged: Forge):
    out, _ = forged("ftp-2003")
    for name in ("windows.threads", "windows.unhandled", "windows.stackwalk", "stackwalk"):
        assert "matches multiple" not in vol(out, name, "-h").err
