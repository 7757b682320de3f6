# SPDX-License-Identifier: Apache-2.0
"""Rows of the three tables of a scan, made from the records of dumps; docs/scan.md lists the columns.

A value that is not known is None, never 0 or an empty text. Texts from dumps are escaped already, as in all reports.
Numbers that a person reads in hexadecimal are there twice: as text, `0x7c828752`, and in a column `…_value` as a
number.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from throwstack.core.text import escape
from throwstack.scan.dump_record import DumpRecord

Row = dict[str, Any]
_MAX_PATH = 4096
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def dump_row(record: DumpRecord) -> Row:
    """Return the row of `dumps` for a dump, examined or not."""
    report = record.report or {}
    file, machine, examined = (report.get(part, {}) for part in ("file", "machine", "examined"))
    expected, missing = file.get("expected_pages"), file.get("missing_pages")
    warnings = report.get("warnings")
    return {
        "dump": _path(record),
        "outcome": record.outcome.value,
        "reason": record.reason or None,
        "kind": record.kind or None,
        "description": record.description or None,
        "size": record.size,
        "modified": _modified(record.modified),
        "expected_pages": expected,
        "missing_pages": missing,
        "is_complete": None if missing is None else missing == 0,
        **_machine(machine),
        "processors": machine.get("processors"),
        "uptime_seconds": machine.get("uptime_seconds"),
        **_hexadecimal("bug_check", machine.get("bug_check", {}).get("code")),
        "processes": examined.get("processes"),
        "threads": examined.get("threads"),
        "crashes": None if record.report is None else record.crashes,
        "unexamined_processes": None if record.report is None else len(report["unexamined"]),
        "warnings": None if warnings is None else [_warning(warning) for warning in warnings],
        "files": [address for _, address in record.files],
        "files_problem": record.files_problem or None,
        "seconds": record.seconds,
        "processor_seconds": record.processor_seconds,
        "peak_memory": record.peak_memory,
        "attempts": record.attempts,
    }


def crash_rows(record: DumpRecord) -> Iterator[Row]:
    """Yield the rows of `crashes` for a dump: one for each stuck thread, in the order of the report."""
    report = record.report or {}
    for number, crash in enumerate(report.get("crashes", ())):
        exceptions = crash.get("exceptions", [])
        first = exceptions[0] if exceptions else {}
        fault, signature = first.get("fault", {}), crash.get("signature", {})
        yield {
            "dump": _path(record),
            "crash": number,
            **_machine(report["machine"]),
            "pid": crash["process"]["pid"],
            "process": crash["process"]["name"] or None,
            **_process(_process_of(report, crash)),
            "tid": crash["tid"],
            "side": crash["side"],
            "arch": crash["arch"],
            "verdict": crash["verdict"]["code"],
            "verdict_text": crash["verdict"]["text"],
            "blocked_in": [_blocker(blocker) for blocker in crash.get("blockers", ())],
            "blocked_since": _time(crash.get("blocked_since")),
            "exceptions": len(exceptions),
            **_hexadecimal("code", first.get("code")),
            "title": first.get("title"),
            "kind": first.get("kind"),
            "type": first.get("type"),
            "message": first.get("message"),
            **_hexadecimal("hresult", first.get("hresult")),
            **_hexadecimal("address", first.get("address")),
            **_hexadecimal("fault_address", fault.get("address")),
            "fault_kind": fault.get("kind"),
            **_hexadecimal("record_address", first.get("record_address")),
            **_hexadecimal("context_address", first.get("context_address")),
            "found_by": first.get("routes", []),
            "thrown_at": crash.get("thrown_at"),
            "signature": signature.get("text"),
            "signature_digest": signature.get("digest"),
            "subject": subject(report, crash)[0],
            "subject_version": subject(report, crash)[1],
            "stack_end": crash.get("throwing", crash.get("blocked", {})).get("end"),
            "box_text": crash.get("box_text"),
            "doubts": crash.get("doubts", []),
            "notes": crash.get("notes", []),
        }


def frame_rows(record: DumpRecord) -> Iterator[Row]:
    """Yield the rows of `frames` for a dump: the frames of all stacks of its stuck threads, innermost first."""
    for number, crash in enumerate((record.report or {}).get("crashes", ())):
        for stack, walk in _stacks(crash):
            for frame in walk["frames"]:
                yield {
                    "dump": _path(record),
                    "crash": number,
                    "pid": crash["process"]["pid"],
                    "tid": crash["tid"],
                    "stack": stack,
                    "number": frame["number"],
                    **_hexadecimal("ip", frame["ip"]),
                    **_hexadecimal("sp", frame["sp"]),
                    **_hexadecimal("return_address", frame.get("return_address")),
                    "name": frame["name"],
                    "module": frame.get("module"),
                    "function": frame.get("function"),
                    "offset": frame.get("offset"),
                    "source": frame.get("source"),
                    "symbols": frame.get("symbols"),
                    "trust": frame["trust"],
                    "note": frame.get("note"),
                }


def symbol_lines(record: DumpRecord) -> Iterator[str]:
    """Yield the lines, for a manifest of `symchk /im`, of the files that the report of a dump calls for."""
    for wanted in (record.report or {}).get("symbols_wanted", ()):
        if not wanted.get("is_at_hand"):
            yield wanted["manifest_line"]


def _stacks(crash: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each stack of a crash with its name: `throwing`, `blocked`, and `exception-1` for the second exception."""
    for name in ("throwing", "blocked"):
        if name in crash:
            yield name, crash[name]
    for number, exception in enumerate(crash.get("exceptions", ())):
        if "stack" in exception:
            yield f"exception-{number}", exception["stack"]


def subject(report: dict[str, Any], crash: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the module that the signature of a crash names last, in which the program's own code is, and its version.

    Example: the signature `ntdll!RtlReportCriticalFailure | app!main` is about `app`.
    """
    text = crash.get("signature", {}).get("text", "")
    module = text.rpartition(" | ")[2].partition("!")[0].partition("+")[0].strip()
    versions = (
        found.get("version")
        for found in _process_of(report, crash).get("modules", ())
        if found["name"].lower() == module.lower()
    )
    return module or None, next(versions, None)


def _process_of(report: dict[str, Any], crash: dict[str, Any]) -> dict[str, Any]:
    """Return the report on the process of a crash; empty if there is none."""
    pid = crash["process"]["pid"]
    found: dict[str, Any] = next((each for each in report.get("processes", ()) if each["pid"] == pid), {})
    return found


def _process(process: dict[str, Any]) -> Row:
    return {
        "image_path": process.get("image_path"),
        "command_line": process.get("command_line"),
        "started": _time(process.get("started")),
        "user": process.get("user") or process.get("user_sid"),
        "services": process.get("services", []),
    }


def _machine(machine: dict[str, Any]) -> Row:
    return {
        "machine": machine.get("name"),
        "system": machine.get("system"),
        "build": machine.get("build"),
        "service_pack": machine.get("service_pack"),
        "architecture": machine.get("architecture"),
        "time": _time(machine.get("time")),
    }


def _hexadecimal(name: str, text: str | None) -> Row:
    return {name: text, f"{name}_value": None if text is None else int(text, 16)}


def _blocker(blocker: dict[str, Any]) -> str:
    module, function = blocker["module"], blocker["function"]
    return f"{module}!{function}" if module and not function.startswith("+") else f"{module}{function}"


def _warning(warning: dict[str, Any]) -> Row:
    return {
        "code": warning["code"],
        "pid": warning.get("pid"),
        "tid": warning.get("tid"),
        "text": warning["text"],
    }


def _path(record: DumpRecord) -> str:
    return escape(record.path, _MAX_PATH)


def _modified(nanoseconds: int | None) -> datetime.datetime | None:
    if nanoseconds is None:
        return None
    try:
        return _EPOCH + datetime.timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:  # a time of change can be anything
        return None


def _time(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)
