# SPDX-License-Identifier: Apache-2.0
"""Names and types of the columns of a scan's tables, as Parquet has them.

The types are such that DuckDB, Polars and pandas read them without help: times with a time zone, addresses as unsigned
numbers of 64 bits beside their texts, lists as lists.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from throwstack.core.text import escape

_SURROGATE = re.compile("[\ud800-\udfff]")
_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_TIME = pa.timestamp("us", tz="UTC")
_WARNINGS = pa.list_(
    pa.struct([("code", pa.string()), ("pid", pa.int64()), ("tid", pa.int64()), ("text", pa.string())])
)


def _hexadecimal(name: str) -> dict[str, Any]:
    return {name: _TEXT, f"{name}_value": pa.uint64()}


_MACHINE = {
    "machine": _TEXT,
    "system": _TEXT,
    "build": pa.int64(),
    "service_pack": _TEXT,
    "architecture": _TEXT,
    "time": _TIME,
}

DUMPS = pa.schema(
    {
        "dump": _TEXT,
        "outcome": _TEXT,
        "reason": _TEXT,
        "kind": _TEXT,
        "description": _TEXT,
        "size": pa.int64(),
        "modified": _TIME,
        "expected_pages": pa.int64(),
        "missing_pages": pa.int64(),
        "is_complete": pa.bool_(),
        **_MACHINE,
        "processors": pa.int64(),
        "uptime_seconds": pa.float64(),
        **_hexadecimal("bug_check"),
        "processes": pa.int64(),
        "threads": pa.int64(),
        "crashes": pa.int64(),
        "unexamined_processes": pa.int64(),
        "warnings": _WARNINGS,
        "files": _TEXTS,
        "files_problem": _TEXT,
        "seconds": pa.float64(),
        "processor_seconds": pa.float64(),
        "peak_memory": pa.int64(),
        "attempts": pa.int64(),
    }.items()
)
CRASHES = pa.schema(
    {
        "dump": _TEXT,
        "crash": pa.int64(),
        **_MACHINE,
        "pid": pa.int64(),
        "process": _TEXT,
        "image_path": _TEXT,
        "command_line": _TEXT,
        "started": _TIME,
        "user": _TEXT,
        "services": _TEXTS,
        "tid": pa.int64(),
        "side": _TEXT,
        "arch": _TEXT,
        "verdict": _TEXT,
        "verdict_text": _TEXT,
        "blocked_in": _TEXTS,
        "blocked_since": _TIME,
        "exceptions": pa.int64(),
        **_hexadecimal("code"),
        "title": _TEXT,
        "kind": _TEXT,
        "type": _TEXT,
        "message": _TEXT,
        **_hexadecimal("hresult"),
        **_hexadecimal("address"),
        **_hexadecimal("fault_address"),
        "fault_kind": _TEXT,
        **_hexadecimal("record_address"),
        **_hexadecimal("context_address"),
        "found_by": _TEXTS,
        "thrown_at": _TEXT,
        "signature": _TEXT,
        "signature_digest": _TEXT,
        "subject": _TEXT,
        "subject_version": _TEXT,
        "stack_end": _TEXT,
        "box_text": _TEXT,
        "doubts": _TEXTS,
        "notes": _TEXTS,
    }.items()
)
FRAMES = pa.schema(
    {
        "dump": _TEXT,
        "crash": pa.int64(),
        "pid": pa.int64(),
        "tid": pa.int64(),
        "stack": _TEXT,
        "number": pa.int64(),
        **_hexadecimal("ip"),
        **_hexadecimal("sp"),
        **_hexadecimal("return_address"),
        "name": _TEXT,
        "module": _TEXT,
        "function": _TEXT,
        "offset": pa.int64(),
        "source": _TEXT,
        "symbols": _TEXT,
        "trust": _TEXT,
        "note": _TEXT,
    }.items()
)


def fitted(value: Any, kind: Any) -> Any:  # noqa: ANN401 what JSON is made of; a module without types
    """Return a value as a column of this type can hold it: a number that is too large is not known (None).

    A damaged or hostile dump may have any number as the PID of a process, 0xfffffffffffffff8 too. One such number would
    end the making of the tables of all dumps.
    """
    if isinstance(value, int):
        low, high = (0, (1 << 64) - 1) if kind == pa.uint64() else (-(1 << 63), (1 << 63) - 1)
        return value if low <= value <= high else None
    if isinstance(value, str):
        return value if value.isascii() or not _SURROGATE.search(value) else escape(value, 10 * len(value))
    if isinstance(value, list):
        return [fitted(item, kind.value_type) for item in value]
    if isinstance(value, dict):
        return {field.name: fitted(value.get(field.name), field.type) for field in kind}
    return value
