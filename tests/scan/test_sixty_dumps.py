# SPDX-License-Identifier: Apache-2.0
"""Sixty dumps of all kinds: what a scan says of each is what the library says of it alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import throwstack
from tests.conftest import Forge
from tests.scan.corpus import make_corpus
from throwstack.cli.main import main

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("distributed")

BASES = ("ftp-2003", "service-x64", "quiet-x86", "wow64-service", "nested")
COUNT = 60


def alone(path: Path, symbols: list[Path]) -> list[tuple[int, int, str, str]] | None:
    """Return the crashes that the library finds in a dump, or None if it cannot be examined."""
    try:
        with throwstack.open(path, symbols=symbols, symbol_path="", image_path="", offline=True) as dump:
            return [(crash.pid, crash.tid, crash.thrown_at, str(crash.signature)) for crash in dump.report().crashes]
    except throwstack.ThrowstackError:
        return None


@pytest.mark.usefixtures("caught")  # damage may be such that the guard catches something
def test_every_dump_has_its_row_and_its_crashes(forged: Forge, tmp_path: Path, monkeypatch):
    for variable in ("_NT_SYMBOL_PATH", "_NT_EXECUTABLE_IMAGE_PATH"):
        monkeypatch.delenv(variable, raising=False)
    made = [forged(case)[0] for case in BASES]
    symbols = [out / "isf" for out in made]
    dumps = make_corpus(tmp_path / "dumps", [out / "MEMORY.DMP" for out in made], COUNT)
    options = [word for directory in symbols for word in ("-s", str(directory))]
    out = tmp_path / "out"
    assert main(["scan", str(tmp_path / "dumps"), "-o", str(out), *options, "--offline", "--quiet"]) == 1

    rows = pq.read_table(out / "dumps.parquet").to_pylist()
    assert [row["dump"] for row in rows] == list(map(str, dumps))
    assert {row["outcome"] for row in rows} == {"examined", "no-memory-image", "failed"}
    found: dict[str, list[tuple[int, int, str, str]]] = {
        row["dump"]: [] for row in rows if row["outcome"] == "examined"
    }
    for row in pq.read_table(out / "crashes.parquet").to_pylist():
        signed = f"{row['signature']} ({row['signature_digest']})"
        found[row["dump"]].append((row["pid"], row["tid"], row["thrown_at"], signed))
    expected = {str(path): crashes for path in dumps if (crashes := alone(path, symbols)) is not None}
    assert found == expected
    assert sum(map(len, found.values())) > COUNT / 2
