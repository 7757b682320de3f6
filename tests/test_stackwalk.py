# SPDX-License-Identifier: Apache-2.0
"""`windows.stackwalk` on forged dumps: whole stacks, what threads wait for, how stacks are found and folded."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from tests.conftest import Forge
from tests.forge.build import DumpKind
from tests.forge.truth import Truth, TruthFrame
from tests.vol import vol

KERNEL_FRAMES = 6
"""Of each waiting thread of the reference case's machine, at most."""


def expected_stacks(truth: Truth) -> dict[tuple[int, int], tuple[TruthFrame, ...]]:
    """The whole stacks that the truth has, by process and thread id."""
    stacks = {tuple(map(int, key.split(":"))): frames for key, frames in truth.stacks.items()}
    return {**stacks, **{(stuck.pid, stuck.tid): stuck.thread_stack for stuck in truth.stuck}}


def shown(frames: tuple[TruthFrame, ...]) -> list[dict[str, Any]]:
    """The columns of frames that the truth fixes."""
    return [
        {
            "Frame": index,
            "Child-SP": frame.child_sp,
            "RetAddr": frame.return_address,
            "Args": None if frame.args is None else " ".join(f"{word:08x}" for word in frame.args),
            "IP": frame.ip,
            "Call Site": frame.symbol,
        }
        for index, frame in enumerate(frames)
    ]


def stacks_in(rows: list[dict[str, Any]], columns: dict[str, Any]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The frames under each thread's row, with the wanted columns."""
    return {
        (row["PID"], row["TID"]): [{name: frame[name] for name in columns} for frame in row["__children"]]
        for row in rows
    }


@pytest.mark.parametrize("kind", list(DumpKind))
def test_every_stack_of_the_reference_case_equals_the_truth(forged: Forge, kind: DumpKind):
    out, truth = forged("ftp-2003", kind=kind)
    expected = {key: shown(frames) for key, frames in expected_stacks(truth).items()}
    found = stacks_in(vol(out, "windows.stackwalk").rows, shown(truth.stuck[0].frames)[0])
    assert len(expected) == 10
    assert {key: found[key] for key in expected} == expected


def test_csv_lines_say_whose_frame_they_are(forged: Forge):
    out, truth = forged("ftp-2003")
    text = vol(out, "windows.stackwalk", "--pid", "2564", "--tid", "2792", renderer="csv").out
    lines = list(csv.DictReader(io.StringIO(text)))
    assert {(line["PID"], line["TID"]) for line in lines} == {("2564", "2792")}
    assert [line["Call Site"] for line in lines[1:]] == [frame.symbol for frame in truth.stuck[0].thread_stack]
