# SPDX-License-Identifier: Apache-2.0
"""Compares what the plugins print with what a forged dump is known to hold."""

from __future__ import annotations

from typing import Any

from tests.forge.truth import Truth, TruthFrame, TruthThread


def expected_unhandled(truth: Truth) -> list[dict[str, Any]]:
    """The columns of `windows.unhandled` that the truth fixes, a row per stuck thread."""
    return [
        {
            "PID": stuck.pid,
            "Process": stuck.process,
            "TID": stuck.tid,
            "Arch": stuck.arch,
            "Code": stuck.code,
            "Address": stuck.address,
            "Thrown At": stuck.thrown_at,
            "Record": stuck.record,
            "Context": stuck.context,
        }
        for stuck in truth.stuck
    ]


def expected_stacks(truth: Truth) -> list[dict[str, Any]]:
    """The columns of `windows.cxrstack` that the truth fixes, a row per frame."""
    return [_frame(stuck, index, frame) for stuck in truth.stuck for index, frame in enumerate(stuck.frames)]


def _frame(stuck: TruthThread, index: int, frame: TruthFrame) -> dict[str, Any]:
    return {
        "PID": stuck.pid,
        "Process": stuck.process,
        "TID": stuck.tid,
        "Frame": index,
        "Child-SP": frame.child_sp,
        "RetAddr": frame.return_address,
        "Args": None if frame.args is None else " ".join(f"{word:08x}" for word in frame.args),
        "IP": frame.ip,
        "Call Site": frame.symbol,
    }


def only(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `rows` with the columns that the expected rows have."""
    columns = expected[0].keys() if expected else ()
    return [{column: row[column] for column in columns} for row in rows]
