# SPDX-License-Identifier: Apache-2.0
"""The two plugins on forged dumps, run through `vol` and compared with the truth that came with each dump."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from tests.conftest import Forge
from tests.forge.build import DumpKind
from tests.forge.cases import builders
from tests.forge.describe import Paging
from tests.forge.dump_kinds import MoreKinds, rewrite
from tests.forge.layouts import CARRIED, load
from tests.support.plugins_truth import expected_stacks, expected_unhandled, only
from tests.support.shared import isf_files, shared
from tests.support.vol import vol
from tests.support.volatility_session import open_dump

WARNINGS = re.compile("WARNING|Unsatisfied|not fulfilled")
CRASHES = ["ftp-2003", "service-x64"]


@pytest.mark.parametrize("kind", list(DumpKind))
@pytest.mark.parametrize("case", CRASHES)
def test_stuck_threads_and_throwing_stacks_equal_the_truth(forged: Forge, case: str, kind: DumpKind):
    out, truth = forged(case, kind=kind)
    expected = expected_unhandled(truth)
    assert only(vol(out, "windows.unhandled").rows, expected) == expected
    expected = expected_stacks(truth)
    assert only(vol(out, "windows.cxrstack").rows, expected) == expected


def kernels() -> list[tuple[str, Path]]:
    """Every layout that the repository carries and every ISF beside the checkout, with the case it can carry."""
    files = [*CARRIED.glob("*.json.xz"), *isf_files()]
    return [("service-x64" if load(file).is_64bit else "ftp-2003", file) for file in sorted(files)]


@pytest.mark.parametrize(("case", "isf"), kernels(), ids=lambda value: getattr(value, "name", value))
def test_every_kernels_structures_give_the_same_answer(forged: Forge, case: str, isf: Path):
    out, truth = forged(case, isf=isf)
    expected = expected_unhandled(truth)
    assert only(vol(out, "windows.unhandled").rows, expected) == expected
    expected = expected_stacks(truth)
    assert only(vol(out, "windows.cxrstack").rows, expected) == expected


@pytest.mark.skipif(shared() is None, reason="no ISF files of real kernels beside the checkout (see CONTRIBUTING.md)")
def test_symbols_of_real_kernels_are_among_the_layouts_tried():
    assert len(kernels()) >= 13


def test_a_kernel_without_pae_gives_the_same_answer(forged: Forge):
    out, truth = forged("ftp-2003", paging=Paging.X86)
    expected = expected_stacks(truth)
    assert only(vol(out, "windows.cxrstack").rows, expected) == expected


def test_the_reference_case_reads_as_the_transcript_does(forged: Forge):
    out, _ = forged("ftp-2003")
    (row,) = vol(out, "windows.unhandled").rows
    assert (row["PID"], row["Process"], row["TID"], row["Arch"]) == (2564, "iftpsvc.exe", 2792, "x86")
    assert row["Blocked In"] == "KERNEL32!UnhandledExceptionFilter, MSVCR71!abort, mscorwks!CorExitProcess"
    assert row["Exception"] == "C++ _com_error, HRESULT 0x80004003 E_POINTER (Invalid pointer)"
    assert row["Found By"].startswith("UnhandledExceptionFilter argument")
    assert row["Blocked Since"] == "2008-03-14T20:26:39.687500+00:00"
    assert row["Details"] == "code 0xE06D7363, parameters 0x19930520 0x45bac00 0x3440a54"
    assert row["Notes"] == ""


def test_details_say_what_the_exception_column_has_no_room_for(forged: Forge):
    out, _ = forged("service-x64")
    thrown, fault = (row["Details"] for row in vol(out, "windows.unhandled").rows)
    assert thrown.startswith("bases: std::runtime_error, std::exception; code 0xE06D7363, parameters 0x19930520 ")
    assert fault == "0x0000000000000018: a null pointer plus an offset; code 0xC0000005, parameters 0x0 0x18"


def test_the_registers_of_the_reference_case_read_as_in_cxr(forged: Forge):
    out, _ = forged("ftp-2003")
    first = vol(out, "windows.cxrstack", "--registers").rows[0]
    assert first["Registers"] == (
        "eax=045bab68 ebx=033f97fe ecx=00000000 edx=045bac00 esi=045babf0 edi=00000000 "
        "eip=77e4bee7 esp=045bab64 ebp=045babb8 iopl=0 nv up ei pl nz na pe nc "
        "cs=001b ss=0023 ds=0023 es=0023 fs=003b gs=0000 efl=00000206"
    )
    assert first["Instruction"] == "001b:77e4bee7 5e pop esi"


def test_a_context_may_be_given_by_its_address(forged: Forge):
    out, truth = forged("ftp-2003")
    expected = expected_stacks(truth)
    rows = vol(out, "windows.cxrstack", "--pid", "2564", "--cxr", "0x045ba888").rows
    assert only(rows, expected) == expected


def test_process_and_thread_ids_select(forged: Forge):
    out, truth = forged("service-x64")
    first, second = truth.stuck
    assert [row["TID"] for row in vol(out, "windows.unhandled", "--tid", str(second.tid)).rows] == [second.tid]
    assert [row["TID"] for row in vol(out, "windows.unhandled", "--pid", str(first.pid)).rows] == [
        first.tid,
        second.tid,
    ]


@pytest.mark.parametrize("case", ["quiet", "quiet-x86"])
def test_a_machine_without_a_crash_gives_an_empty_table(forged: Forge, case: str):
    out, _ = forged(case)
    done = vol(out, "windows.unhandled")
    assert (done.status, done.rows) == (0, [])


def test_every_renderer_shows_the_same_rows(forged: Forge):
    out, _ = forged("ftp-2003")
    for plugin, headings in (("windows.unhandled", 0), ("windows.cxrstack", 1)):
        rows = vol(out, plugin).rows
        lines = [json.loads(line) for line in vol(out, plugin, renderer="jsonl").out.splitlines() if line]
        table = list(csv.DictReader(io.StringIO(vol(out, plugin, renderer="csv").out)))
        pretty = vol(out, plugin, renderer="pretty").out
        assert lines == rows
        assert [row["TID"] for row in table] == [str(row["TID"]) for row in rows]
        assert pretty.count("| 2792 |") == headings + len(rows)
        assert pretty.count("iftpsvc.exe") == 1


def test_a_process_that_does_not_exist_is_named(forged: Forge):
    out, _ = forged("ftp-2003")
    done = vol(out, "windows.unhandled", "--pid", "4242")
    assert (done.status, done.rows) == (0, [])
    assert "there is no process with PID 4242" in done.err
    assert "Traceback" not in done.err


def test_a_process_without_user_mode_memory_is_named(forged: Forge):
    out, _ = forged("ftp-2003")
    done = vol(out, "windows.unhandled", "--pid", "4", "2564")
    assert [row["PID"] for row in done.rows] == [2564]
    assert "of the process with PID 4 there is no user-mode memory" in done.err


def test_the_context_of_a_thread_that_is_left_out_is_not_shown(forged: Forge):
    out, _ = forged("ftp-2003")
    done = vol(out, "windows.cxrstack", "--pid", "2564", "--tid", "2568", "--cxr", "0x045ba888")
    assert (done.status, done.rows) == (0, [])
    assert "the CONTEXT at 0x45ba888 is thread 2792's, which --tid leaves out" in done.err


def test_a_thread_that_does_not_exist_is_named(forged: Forge):
    out, _ = forged("ftp-2003")
    done = vol(out, "windows.unhandled", "--tid", "4242")
    assert (done.status, done.rows) == (0, [])
    assert "there is no thread with TID 4242" in done.err


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("0x00001000", "no readable memory"),
        ("0x77e4bee7", "not a user-mode CONTEXT"),
        ("0xffffffffffffff00", "no readable memory"),
    ],
)
def test_an_address_without_a_context_says_so(forged: Forge, address: str, problem: str):
    out, _ = forged("ftp-2003")
    done = vol(out, "windows.cxrstack", "--pid", "2564", "--cxr", address)
    assert (done.status, done.rows) == (0, [])
    assert problem in done.err
    assert "Traceback" not in done.err


def test_a_process_without_a_readable_peb_is_examined_by_its_vads(forged: Forge):
    out, truth = forged("paged-peb")
    expected = expected_unhandled(truth)
    done = vol(out, "windows.unhandled")
    assert only(done.rows, expected) == expected
    assert "PEB at 0x" in done.err
    assert "modules taken from the VADs" in done.err


def test_a_truncated_dump_gives_what_is_there_and_says_what_is_not(forged: Forge, tmp_path: Path):
    out, truth = forged("service-x64")
    dump = tmp_path / "MEMORY.DMP"
    data = (out / "MEMORY.DMP").read_bytes()
    found: list[int] = []
    for part in (1, 3, 5, 6, 7):
        dump.write_bytes(data[: len(data) * part // 8])
        done = vol(out, "windows.unhandled", dump=dump)
        assert "Traceback" not in done.err
        rows = done.rows if done.out.strip() else []
        found.append(len(rows))
        if len(rows) < len(truth.stuck):
            assert WARNINGS.search(done.err), "an empty table without a word would read: nothing has crashed"
    assert found == sorted(found)
    assert found[-1] > 0


def test_stacks_that_are_gone_are_not_passed_over_in_silence(forged: Forge, tmp_path: Path):
    out, _ = forged("service-x64")
    case = builders()["service-x64"][0]()
    stacks = {
        region.data[at : at + 0x1000].ljust(0x1000, b"\0")
        for process in case.machine.processes
        for region in process.regions
        if any(region.base < thread.stack_base <= region.base + len(region.data) for thread in process.threads)
        for at in range(0, len(region.data), 0x1000)
        if any(region.data[at : at + 0x1000])
    }
    rewrite(out / "MEMORY.DMP", tmp_path / "MEMORY.DMP", MoreKinds.BITMAP_KERNEL, lambda page: page not in stacks)
    done = vol(out, "windows.unhandled", dump=tmp_path / "MEMORY.DMP")
    assert done.rows == []
    assert "stuck threads may have been missed" in done.err


@pytest.mark.parametrize("what", ["processes", "threads"])
def test_a_list_that_breaks_off_is_named(forged: Forge, tmp_path: Path, what: str):
    """The record that the list's end comes back to is gone on from: one EPROCESS or ETHREAD with a wild link."""
    out, truth = forged("service-x64")
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        process = session.processes()[truth.stuck[0].pid]
        links = process.ActiveProcessLinks if what == "processes" else process.ThreadListHead
        place = links.Flink.vol.offset
        offset, _ = session.kernel_layer.translate(place)
        memory = session.context.layers[session.kernel_layer.config["memory_layer"]]
        _, _, at, _, _ = next(memory.mapping(offset, 8))
    data = bytearray((out / "MEMORY.DMP").read_bytes())
    data[at : at + 8] = (0xFFFFDEAD00000000).to_bytes(8, "little")
    (tmp_path / "MEMORY.DMP").write_bytes(data)
    done = vol(out, "windows.unhandled", dump=tmp_path / "MEMORY.DMP")
    assert f"list of {what} is broken" in done.err
    assert len(done.rows) == len(truth.stuck), "the list is followed from its end as well"


def test_a_file_that_is_no_dump_is_refused(forged: Forge, tmp_path):
    out, _ = forged("ftp-2003")
    text = tmp_path / "notes.txt"
    text.write_text("this is not a dump\n" * 1000, encoding="utf-8")
    done = vol(out, "windows.unhandled", dump=text)
    assert done.status != 0
    assert "Traceback" not in done.err


def timeline(out: Path, directory: Path) -> list[tuple[str, str]]:
    done = vol(out, "timeliner", "--plugin-filter", "windows.unhandled", more=("-o", str(directory)))
    return [(row["Modified Date"], row["Description"]) for row in done.rows]


def test_stuck_threads_take_part_in_the_timeline(forged: Forge, tmp_path: Path):
    out, _ = forged("ftp-2003")
    assert timeline(out, tmp_path) == [
        (
            "2008-03-14T20:26:39.687500+00:00",
            (
                "Unhandled exception: iftpsvc.exe (PID 2564, TID 2792) crashed inside shutdown: C++ _com_error, "
                "HRESULT 0x80004003 E_POINTER (Invalid pointer) at ftpsrvdata_pg!_com_raise_error+0x32"
            ),
        )
    ]


def test_the_timeline_calls_no_shutdown_an_exception(forged: Forge, tmp_path: Path):
    out, _ = forged("shutdown-hang")
    crash, *hangs = [text for _, text in timeline(out, tmp_path)]
    assert crash.startswith("Unhandled exception: ledgersvc.exe (PID 6100, TID 6108) crashed inside shutdown: ")
    for text, tid in zip(hangs, (6112, 6116), strict=True):
        assert text.startswith(
            f"Stuck thread: ledgersvc.exe (PID 6100, TID {tid}) hangs in shutdown without an exception: in "
        )
