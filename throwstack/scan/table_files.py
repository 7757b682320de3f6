# SPDX-License-Identifier: Apache-2.0
"""Writes the files of a scan's results, all made from the parts in the order of the dumps' paths.

The records are read one after the other, and rows are written in groups, so that memory does not grow with the number
of dumps. The files are made in a directory of their own and then renamed: a reader sees the old ones or the new ones,
whole.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from throwstack.core.text import escape
from throwstack.scan.dump_record import DumpRecord
from throwstack.scan.part_store import StorageFailed, sync_directory
from throwstack.scan.table_columns import CRASHES, DUMPS, FRAMES, fitted
from throwstack.scan.table_rows import Row, crash_rows, dump_row, frame_rows, symbol_lines

_ROWS_IN_GROUP = 8192
_MAX_SYMBOLS = 1 << 20
_MAKING = ".making"

TABLES = {"dumps.parquet": DUMPS, "crashes.parquet": CRASHES, "frames.parquet": FRAMES}


def write_tables(out: Path, records: Iterable[DumpRecord]) -> None:
    """Write the tables and lists of `records` into the directory `out`, in place of those of an earlier run.

    Raises StorageFailed.
    """
    making = out / _MAKING
    try:
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        _write(making, records)
        for made in sorted(making.iterdir()):
            made.replace(out / made.name)
        sync_directory(out)
    except OSError as error:
        message = f"{out}: {error.strerror or error}"
        raise StorageFailed(message) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _write(directory: Path, records: Iterable[DumpRecord]) -> None:
    symbols: set[str] = set()
    with contextlib.ExitStack() as closing:
        dumps, crashes, frames = (
            closing.enter_context(_table(directory / name, schema)) for name, schema in TABLES.items()
        )
        reports = closing.enter_context(
            (directory / "crashes.jsonl").open("w", encoding="utf-8", errors="backslashreplace", newline="\n")
        )
        for record in records:
            dumps.add(dump_row(record))
            for row in crash_rows(record):
                crashes.add(row)
            for row in frame_rows(record):
                frames.add(row)
            _write_report(reports, record)
            if len(symbols) < _MAX_SYMBOLS:
                symbols.update(symbol_lines(record))
    text = "".join(f"{line}\n" for line in sorted(symbols))
    (directory / "symbols-needed.txt").write_text(text, "utf-8", newline="\n")


def _write_report(file: IO[str], record: DumpRecord) -> None:
    if record.report is not None:
        line = {"dump": escape(record.path, 4096), "report": record.report}
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


@dataclass(slots=True)
class _Table:
    """A Parquet file under way, and the rows of it that are not written yet."""

    writer: Any
    schema: Any
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append({field.name: fitted(row[field.name], field.type) for field in self.schema})
        if len(self.rows) >= _ROWS_IN_GROUP:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
            self.rows.clear()


@contextlib.contextmanager
def _table(path: Path, schema: Any) -> Iterator[_Table]:  # noqa: ANN401 a module without types
    with path.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        table = _Table(writer, schema)
        yield table
        table.flush()
