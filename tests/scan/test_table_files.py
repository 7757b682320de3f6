# SPDX-License-Identifier: Apache-2.0
"""The tables of a scan, read by the tools that people read them with."""

from __future__ import annotations

import datetime
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.scan.misbehave import report
from tests.support.vol import CHECKOUT
from throwstack.scan.dump_record import DumpOutcome, DumpRecord
from throwstack.scan.part_store import StorageFailed

pq = pytest.importorskip("pyarrow.parquet")

from throwstack.scan import table_files  # noqa: E402 after the question whether pyarrow is there

TIME = "2021-07-05T23:06:40+00:00"
FRAME = {"number": 0, "ip": "0xfffff80000000010", "sp": "0x10", "name": "app!main+0x2", "trust": "context"}
CRASH = {
    "process": {"pid": 8, "name": "app.exe"},
    "tid": 12,
    "side": "native",
    "arch": "x64",
    "verdict": {"code": "crashed", "text": "crashed"},
    "blockers": [{"module": "ntdll", "function": "NtWait"}, {"module": "app", "function": "+0x12"}],
    "exceptions": [
        {"code": "0xc0000005", "address": "0x7ff600001000", "title": "ACCESS_VIOLATION", "fault": {"address": "0x0"}},
        {"code": "0xe06d7363", "address": "0x7ff600002000", "stack": {"frames": [FRAME], "end": "thread-start"}},
    ],
    "throwing": {"frames": [FRAME, {**FRAME, "number": 1, "module": "app", "function": "main"}], "end": "thread-start"},
    "blocked_since": TIME,
    "signature": {"text": "app!main", "digest": "0123abcd"},
}


def examined(path: str, *crashes: dict[str, object]) -> DumpRecord:
    made = report(path)
    made["machine"] = {"system": "Windows 10", "architecture": "x64", "build": 19041, "time": TIME}
    made["crashes"] = list(crashes)
    made["warnings"] = [{"code": "stack", "text": "a stack cannot be read", "pid": 8}]
    made["symbols_wanted"] = [
        {"manifest_line": "app.pdb,00,1", "module": "app", "why": "names"},
        {"manifest_line": "at.pdb,00,1", "module": "at", "why": "types", "is_at_hand": True},
    ]
    return DumpRecord(path, "k", DumpOutcome.EXAMINED, 4096, 1_600_000_000_123_456_789, "crash-dump", report=made)


RECORDS = [
    examined("/dumps/a.dmp", CRASH, {**CRASH, "tid": 16}),
    DumpRecord("/dumps/b.txt", "k", DumpOutcome.NO_MEMORY_IMAGE, 3, 5, "text", reason="this is text"),
    examined("/dumps/c.dmp"),
    DumpRecord("/dumps/\udce9.dmp", "k", DumpOutcome.UNREADABLE, reason="No such file"),
]


def rows(out: Path, table: str) -> list[dict[str, object]]:
    return pq.read_table(out / f"{table}.parquet").to_pylist()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    table_files.write_tables(tmp_path, RECORDS)
    return tmp_path


def test_every_dump_has_its_row(out):
    first, foreign, quiet, missing = rows(out, "dumps")
    assert (first["dump"], first["outcome"], first["crashes"], first["build"]) == ("/dumps/a.dmp", "examined", 2, 19041)
    assert first["modified"] == datetime.datetime(2020, 9, 13, 12, 26, 40, 123456, tzinfo=datetime.timezone.utc)
    assert first["warnings"] == [{"code": "stack", "pid": 8, "tid": None, "text": "a stack cannot be read"}]
    assert (foreign["outcome"], foreign["reason"], foreign["crashes"]) == ("no-memory-image", "this is text", None)
    assert quiet["crashes"] == 0
    assert (missing["dump"], missing["size"]) == (r"/dumps/\udce9.dmp", None)


def test_every_stuck_thread_has_its_row(out):
    first, second = rows(out, "crashes")
    assert (first["dump"], first["crash"], first["tid"], second["tid"]) == ("/dumps/a.dmp", 0, 12, 16)
    assert (first["code"], first["code_value"]) == ("0xc0000005", 0xC0000005)
    assert (first["fault_address"], first["fault_address_value"]) == ("0x0", 0)
    assert (first["hresult"], first["hresult_value"], first["message"]) == (None, None, None)
    assert first["blocked_in"] == ["ntdll!NtWait", "app+0x12"]
    assert first["blocked_since"] == datetime.datetime.fromisoformat(TIME)
    assert (first["exceptions"], first["stack_end"]) == (2, "thread-start")


def test_every_frame_has_its_row_with_the_crash_it_belongs_to(out):
    found = [(row["crash"], row["stack"], row["number"], row["ip_value"]) for row in rows(out, "frames")]
    of_one = [("throwing", 0, 0xFFFFF80000000010), ("throwing", 1, 0xFFFFF80000000010)]
    of_one += [("exception-1", 0, 0xFFFFF80000000010)]
    assert found == [(crash, *row) for crash in (0, 1) for row in of_one]


def test_whole_reports_and_the_symbols_they_call_for(out):
    lines = [json.loads(line) for line in (out / "crashes.jsonl").read_text("utf-8").splitlines()]
    assert [(line["dump"], line["report"]) for line in lines] == [
        ("/dumps/a.dmp", RECORDS[0].report),
        ("/dumps/c.dmp", RECORDS[2].report),
    ]
    assert (out / "symbols-needed.txt").read_text() == "app.pdb,00,1\n"


def test_more_rows_than_a_group_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "_ROWS_IN_GROUP", 2)
    table_files.write_tables(tmp_path, RECORDS)
    assert pq.ParquetFile(tmp_path / "frames.parquet").num_row_groups == 3
    assert len(rows(tmp_path, "dumps")) == 4


def test_tables_without_a_row_have_their_columns(tmp_path):
    table_files.write_tables(tmp_path, [])
    assert rows(tmp_path, "crashes") == []
    assert "signature" in pq.read_schema(tmp_path / "crashes.parquet").names


def test_a_table_that_cannot_be_written_leaves_the_old_ones(out, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(table_files, "_write_report", full)
    with pytest.raises(StorageFailed, match="No space left on device"):
        table_files.write_tables(out, RECORDS[:1])
    assert len(rows(out, "dumps")) == 4
    assert sorted(path.name for path in out.iterdir()) == [
        "crashes.jsonl",
        "crashes.parquet",
        "dumps.parquet",
        "frames.parquet",
        "symbols-needed.txt",
    ]


def documented(language: str) -> list[str]:
    """Return the queries of docs/scan.md."""
    text = (CHECKOUT / "docs" / "scan.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_queries_of_the_documentation_in_duckdb(out):
    """Each is run as it is written there."""
    duckdb = pytest.importorskip("duckdb")
    counted, doubtful, versions = (
        duckdb.sql(query.replace("results/", f"{out}/")).fetchall() for query in documented("sql")
    )
    assert [row[:3] for row in counted] == [("app!main", 2, 1)]
    assert [(row[0], row[2], row[4]) for row in sorted(doubtful)] == [
        ("/dumps/\\udce9.dmp", "No such file", None),
        ("/dumps/a.dmp", None, "stack"),
        ("/dumps/b.txt", "this is text", None),
        ("/dumps/c.dmp", None, "stack"),
    ]
    assert versions == [("app", None, "app.exe", "/dumps/a.dmp", None)]


def test_the_query_of_the_documentation_in_polars(out, capsys):
    pytest.importorskip("polars")
    (query,) = documented("python")
    exec(query.replace("results/", f"{out}/"), {})
    assert "app.exe" in capsys.readouterr().out


def test_the_documentation_names_every_column():
    named = set(re.findall(r"`(\w+)`", (CHECKOUT / "docs" / "scan.md").read_text("utf-8")))
    columns = {name.removesuffix("_value") for schema in table_files.TABLES.values() for name in schema.names}
    assert columns - named == set()


def test_polars_reads_the_types_without_help(out):
    polars = pytest.importorskip("polars")
    crashes = polars.read_parquet(out / "crashes.parquet")
    assert crashes.filter(polars.col("code_value") == 0xC0000005).height == 2
    assert crashes["time"].dtype == polars.Datetime("us", "UTC")
    worst = polars.scan_parquet(out / "dumps.parquet").filter(polars.col("outcome") != "examined").collect()
    assert worst["reason"].to_list() == ["this is text", "No such file"]


def test_the_order_of_records_is_the_order_of_rows(tmp_path):
    table_files.write_tables(tmp_path, [replace(record, seconds=1.0) for record in RECORDS])
    assert [row["dump"] for row in rows(tmp_path, "dumps")] == [
        "/dumps/a.dmp",
        "/dumps/b.txt",
        "/dumps/c.dmp",
        r"/dumps/\udce9.dmp",
    ]


def test_numbers_and_texts_that_no_column_can_hold_cost_no_other_dump(tmp_path):
    """A hostile dump names a process with the PID 2^64 - 8 and half a character: its rows are there without them."""
    hostile = {
        **CRASH,
        "process": {"pid": (1 << 64) - 8, "name": "app.exe"},
        "throwing": {"frames": [{**FRAME, "offset": 1 << 63}], "end": "thread-start"},
        "exceptions": [{"code": "0x" + "f" * 17, "message": "half \ud83d"}],
    }
    dump = examined("/dumps/a.dmp", hostile)
    dump.report["warnings"][0]["tid"] = 1 << 64
    table_files.write_tables(tmp_path, [dump, RECORDS[0]])
    first, *others = rows(tmp_path, "crashes")
    assert (first["pid"], first["tid"], first["code_value"], first["message"]) == (None, 12, None, r"half \ud83d")
    assert [other["pid"] for other in others] == [8, 8]
    assert rows(tmp_path, "frames")[0]["offset"] is None
    assert rows(tmp_path, "dumps")[0]["warnings"][0]["tid"] is None
    line = (tmp_path / "crashes.jsonl").read_text("utf-8").splitlines()[0]
    assert json.loads(line)["report"]["crashes"] == [hostile]
