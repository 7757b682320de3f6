# SPDX-License-Identifier: Apache-2.0
"""Records of dumps for tests of what is made of them, without any dump."""

from __future__ import annotations

from typing import Any

from tests.scan.misbehave import report
from throwstack.scan.dump_record import DumpOutcome, DumpRecord


def made_crash(
    signature: str = "app!main", *, frames: tuple[str, ...] = ("app!main+0x2",), **more: Any
) -> dict[str, Any]:
    """Return a crash as JSON has it; what is in `more` replaces its fields."""
    return {
        "process": {"pid": 8, "name": "app.exe"},
        "tid": 12,
        "side": "native",
        "arch": "x64",
        "verdict": {"code": "crashed", "text": "crashed"},
        "exceptions": [{"code": "0xc0000005", "address": "0x10", "title": "ACCESS_VIOLATION reading 0x0"}],
        "throwing": {
            "frames": [
                {"number": number, "ip": "0x10", "sp": "0x20", "name": name, "trust": "context"}
                for number, name in enumerate(frames)
            ],
            "end": "thread-start",
        },
        "signature": {"text": signature, "digest": "0123abcd"},
        **more,
    }


def made_record(
    path: str, *crashes: dict[str, Any], day: str = "2026-03-01", machine: str = "", **more: Any
) -> DumpRecord:
    """Return the record of an examined dump, taken on `day`; what is in `more` replaces fields of its report."""
    made = report(path)
    made["machine"] = {"system": "Windows 10", "architecture": "x64", "time": f"{day}T10:00:00+00:00"}
    if machine:
        made["machine"]["name"] = machine
    return DumpRecord(path, "k", DumpOutcome.EXAMINED, 4096, 5, report={**made, "crashes": list(crashes), **more})
