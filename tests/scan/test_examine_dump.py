# SPDX-License-Identifier: Apache-2.0
"""One dump examined for a scan: its record says the same as the library, or why there is no report."""

from __future__ import annotations

from pathlib import Path

import pytest

import throwstack
from tests.conftest import Forge
from throwstack.scan.dump_record import DumpOutcome, DumpRecord
from throwstack.scan.examine_dump import examine
from throwstack.scan.scan_inputs import find_inputs
from throwstack.scan.scan_settings import ScanSettings


def record_of(path: Path, **settings) -> DumpRecord:
    (dump,) = find_inputs([str(path)])
    return examine(dump, "key", ScanSettings(offline=True, **settings))


def test_a_dump_with_a_crash(forged: Forge):
    out, _ = forged("service-x64")
    record = record_of(out / "MEMORY.DMP", symbols=(str(out / "isf"),))
    assert (record.outcome, record.kind, record.reason) == (DumpOutcome.EXAMINED, "crash-dump", "")
    with throwstack.open(out / "MEMORY.DMP", symbols=out / "isf", offline=True) as dump:
        assert record.report == throwstack.to_json(dump.report())
    assert record.crashes == 2
    assert record.seconds > 0
    assert record.processor_seconds > 0
    assert record.peak_memory > 10 << 20


def test_reports_and_minidumps_one_for_each_signature(forged: Forge, tmp_path):
    """The second dump has the same signatures as the first: nothing is written of it. The first again has its files."""
    out, _ = forged("service-x64")
    copy = tmp_path / "copy.dmp"
    copy.write_bytes((out / "MEMORY.DMP").read_bytes())
    wanted = {"symbols": (str(out / "isf"),), "out": str(tmp_path), "reports": "new", "minidumps": "new"}
    first = record_of(out / "MEMORY.DMP", **wanted)
    assert [label for label, _ in first.files] == ["report", "minidump"]
    for _, address in first.files:
        assert (tmp_path / address).stat().st_size > 1000
    assert (record_of(copy, **wanted).files, first.files_problem) == ([], "")
    assert record_of(out / "MEMORY.DMP", **wanted).files == first.files
    every = record_of(copy, **{**wanted, "minidumps": "all"})
    assert [label for label, _ in every.files] == ["minidump"]


def test_a_claim_without_a_name_in_it_is_nobodys(forged: Forge, tmp_path):
    """The process that claimed a signature was killed before it had written which dump it was for."""
    out, _ = forged("service-x64")
    wanted = {"symbols": (str(out / "isf"),), "out": str(tmp_path), "reports": "new"}
    digests = [crash["signature"]["digest"] for crash in record_of(out / "MEMORY.DMP", **wanted).report["crashes"]]
    for digest in digests:
        (tmp_path / "signatures" / digest).write_bytes(b"")
    copy = tmp_path / "copy.dmp"
    copy.write_bytes((out / "MEMORY.DMP").read_bytes())
    assert [label for label, _ in record_of(copy, **wanted).files] == ["report"]
    (tmp_path / "gone").touch()
    nowhere = record_of(copy, **{**wanted, "out": str(tmp_path / "gone")})
    assert (nowhere.outcome, nowhere.files_problem) == (DumpOutcome.EXAMINED, "Not a directory")


def test_files_that_cannot_be_written_cost_no_report(forged: Forge, tmp_path):
    out, _ = forged("service-x64")
    (tmp_path / "reports").touch()
    record = record_of(out / "MEMORY.DMP", symbols=(str(out / "isf"),), out=str(tmp_path), reports="all")
    assert (record.outcome, record.files, record.crashes) == (DumpOutcome.EXAMINED, [], 2)
    assert record.files_problem == "File exists"


def test_the_selection_is_that_of_the_settings(forged: Forge):
    out, _ = forged("service-x64")
    assert record_of(out / "MEMORY.DMP", symbols=(str(out / "isf"),), pids=(4,)).crashes == 0


def test_a_dump_whose_symbols_are_not_at_hand_fails_and_may_succeed_later(forged: Forge):
    out, _ = forged("service-x64")
    record = record_of(out / "MEMORY.DMP")
    assert record.outcome is DumpOutcome.FAILED
    assert not record.outcome.is_final
    assert record.reason.startswith("the kernel's symbols are not at hand")


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"", "empty", "empty file: the file has no contents: copy it again"),
        (b"hello\n", "text", "text file: this is text, not a memory image"),
        (b"MDMP" + bytes(4096), "user-minidump", "minidump of one process, no exception: it holds one process"),
        (b"PAGEDU64", "cut-header", "Windows crash dump, cut off within its header"),
    ],
)
def test_a_foreign_file(tmp_path, data, kind, reason):
    (tmp_path / "x").write_bytes(data)
    record = record_of(tmp_path / "x")
    assert (record.outcome, record.kind) == (DumpOutcome.NO_MEMORY_IMAGE, kind)
    assert record.reason.startswith(reason)
    assert record.outcome.is_final


def test_an_image_without_a_kernel(tmp_path):
    (tmp_path / "x").write_bytes(bytes(range(256)) * 64)
    record = record_of(tmp_path / "x")
    assert (record.outcome, record.reason) == (DumpOutcome.FAILED, "no Windows kernel was found in it")


def test_a_file_that_is_not_there(tmp_path):
    record = record_of(tmp_path / "gone")
    assert (record.outcome, record.reason) == (DumpOutcome.UNREADABLE, "No such file or directory")


def test_a_defect_of_ours_costs_one_dump(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(bytes(range(256)) * 64)
    monkeypatch.setattr(throwstack, "open", lambda *_, **__: 1 / 0)
    record = record_of(tmp_path / "x")
    assert (record.outcome, record.reason) == (
        DumpOutcome.FAILED,
        "unexpected ZeroDivisionError: division by zero",
    )
