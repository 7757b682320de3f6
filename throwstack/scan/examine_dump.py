# SPDX-License-Identifier: Apache-2.0
"""Examines one dump by the library, and makes its record. It runs in a process of its own (`examiner_main`)."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import throwstack
from throwstack.core.errors import ThrowstackError
from throwstack.core.guard import reason_of
from throwstack.core.text import escape
from throwstack.crashdump.file_bytes import FileBytes
from throwstack.crashdump.file_kind import Identity, identify
from throwstack.scan.dump_files import WantedFiles, write_files
from throwstack.scan.dump_record import DumpOutcome, DumpRecord
from throwstack.scan.peak_memory import peak_memory, restart_peak
from throwstack.scan.scan_inputs import DumpInput
from throwstack.scan.scan_settings import ScanSettings

_MAX_REASON = 1024


def examine(dump: DumpInput, key: str, settings: ScanSettings) -> DumpRecord:
    """Return the record of `dump`. Whatever the dump is, this raises nothing but MemoryError."""
    begun, processor = time.monotonic(), time.process_time()
    restart_peak()
    record = _examined(DumpRecord(dump.path, key, DumpOutcome.FAILED, dump.size, dump.modified), dump, settings)
    return replace(
        record,
        seconds=round(time.monotonic() - begun, 3),
        processor_seconds=round(time.process_time() - processor, 3),
        peak_memory=peak_memory(),
    )


def _examined(record: DumpRecord, dump: DumpInput, settings: ScanSettings) -> DumpRecord:
    if dump.problem:
        return replace(record, outcome=DumpOutcome.UNREADABLE, reason=escape(dump.problem, _MAX_REASON))
    try:
        identity = _identified(dump.path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return replace(record, outcome=DumpOutcome.UNREADABLE, reason=escape(reason, _MAX_REASON))
    record = replace(
        record, kind=identity.kind.name.lower().replace("_", "-"), description=escape(identity.text, _MAX_REASON)
    )
    try:
        with throwstack.open(
            dump.path,
            symbols=settings.symbols,
            symbol_path=settings.symbol_path,
            image_path=settings.image_path,
            page_files=settings.page_files,
            offline=settings.offline,
        ) as opened:
            report = opened.report(pids=settings.pids, tids=settings.tids, wow64=settings.wow64)
            wanted = WantedFiles(settings.out, settings.reports, settings.minidumps)
            files, problem = write_files(opened, report, dump.path, wanted)
            return replace(
                record,
                outcome=DumpOutcome.EXAMINED,
                report=throwstack.to_json(report),
                files=files,
                files_problem=escape(problem, _MAX_REASON),
            )
    except MemoryError:
        raise
    except ThrowstackError as error:
        outcome = DumpOutcome.FAILED if identity.kind.is_memory else DumpOutcome.NO_MEMORY_IMAGE
        return replace(record, outcome=outcome, reason=_without_path(str(error), dump.path))
    except Exception as error:  # noqa: BLE001 a defect of ours costs this dump alone
        return replace(record, reason=reason_of(error))


def _identified(path: str) -> Identity:
    data = FileBytes(Path(path))
    try:
        return identify(data)
    finally:
        data.close()


def _without_path(message: str, path: str) -> str:
    """Return a message of the library without the path, which the record has already."""
    return escape(message.removeprefix(f"{escape(path, 4096)}: "), _MAX_REASON)
