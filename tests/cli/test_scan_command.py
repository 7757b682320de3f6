# SPDX-License-Identifier: Apache-2.0
"""`throwstack scan`: forged dumps and foreign files in, tables and an exit status out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.conftest import Forge
from throwstack.cli.main import main

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("distributed")

MEASURED = ["seconds", "processor_seconds", "peak_memory"]


@pytest.fixture(scope="module")
def dumps(forged: Forge, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options for two machines with crashes, one without, and three files that are no images."""
    foreign = tmp_path_factory.mktemp("foreign")
    (foreign / "empty.dmp").touch()
    (foreign / "notes.txt").write_text("no dump")
    out = [forged(case)[0] for case in ("ftp-2003", "service-x64", "quiet")]
    symbols = [word for made in out for word in ("-s", str(made / "isf"))]
    return [*(str(made / "MEMORY.DMP") for made in out), str(foreign), str(foreign / "gone"), *symbols, "--offline"]


def rows(out: Path, table: str, *without: str) -> list[dict[str, object]]:
    return pq.read_table(out / f"{table}.parquet").drop_columns(list(without)).to_pylist()


def test_a_scan_and_the_same_again(dumps, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["scan", *dumps, "-o", str(out), "--workers", "2", "--json-progress"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[:3] == ["6 dumps: 3 examined", "       2 no memory image", "       1 unreadable"]
    assert said.out.splitlines()[3] == "3 stuck threads, 3 signatures"
    last = json.loads(said.err.splitlines()[-1])
    assert (last["total"], last["done"], last["failed"], last["crashes"]) == (6, 6, 3, 3)
    assert [row["outcome"] for row in rows(out, "dumps")].count("examined") == 3
    assert {row["thrown_at"].partition("+")[0] for row in rows(out, "crashes")} == {
        "ftpsrvdata_pg!_com_raise_error",
        "ledgersvc!ledger::Parser::Require",
        "ledgersvc!ledger::hash_bytes",
    }
    before = [rows(out, table) for table in ("crashes", "frames")]
    assert main(["scan", *dumps, "-o", str(out), "--workers", "2", "--quiet"]) == 1
    assert capsys.readouterr().err == ""
    assert [rows(out, table) for table in ("crashes", "frames")] == before


def test_all_dumps_examined_is_success(forged: Forge, tmp_path, capsys):
    out, _ = forged("quiet")
    options = ["-s", str(out / "isf"), "--offline", "-o", str(tmp_path / "out"), "--workers", "1"]
    assert main(["scan", str(out / "MEMORY.DMP"), *options]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("1 dump: 1 examined\n0 stuck threads")
    assert said.err.splitlines()[0] == "0 of 1 dumps, 0 crashes"
    assert said.err.splitlines()[-1].startswith("1 of 1 dumps, ")


def test_nothing_to_scan(tmp_path, capsys):
    assert main(["scan", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    said = "throwstack scan: there is no file to examine"
    assert capsys.readouterr().err == f"{said}; --recursive searches directories inside directories as well\n"
    assert main(["scan", str(tmp_path), "-o", str(tmp_path / "out"), "--recursive"]) == 2
    assert capsys.readouterr().err == f"{said}\n"
    assert not (tmp_path / "out").exists()


def test_without_the_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for module in ("write_results", "table_files", "table_columns"):
        monkeypatch.delitem(sys.modules, f"throwstack.scan.{module}", raising=False)
        monkeypatch.delattr(f"throwstack.scan.{module}", raising=False)
    assert main(["scan", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith(": pip install 'throwstack[scan]'\n")


@pytest.mark.skipif(os.name == "nt", reason="another message there")
def test_results_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["scan", __file__, "-o", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"throwstack scan: {tmp_path / 'file'} is not a directory\n"
    assert main(["scan", __file__, "-o", str(tmp_path / "file" / "below")]) == 2
    assert capsys.readouterr().err.endswith("below: Not a directory\n")


@pytest.mark.parametrize("options", [[], ["-o"], ["-o", "x", "--memory-limit", "3"], ["-o", "x", "--workers", "0"]])
def test_wrong_usage(options):
    assert main(["scan", "x", *options]) == 64
