# SPDX-License-Identifier: Apache-2.0
"""What the rows of variables below a frame say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.described_frames import BASE, FUNCTION, Described
from tests.support.pdb_functions import GUID
from tests.support.pdb_model import X64, X86, Local, Place, Procedure, Register
from tests.support.pdb_writer import Pdb
from throwstack.core.registers import Arch
from throwstack.names.name_style import NameStyle
from throwstack.report.crash_report import ProcessSummary
from throwstack.report.frame_report import FrameDetail, FrameReport, frame_reports
from throwstack.report.values import Hexadecimal
from throwstack.volatility.tables.frame_table import (
    FrameRow,
    below_headings,
    frame_columns,
    variable_note,
    variable_rows,
)

SOURCE = r"d:\a.c"


def reported(folder: Path, machine: int, *names: str, count: int = 1) -> FrameReport:
    """Return the report on a frame in the functions `names`, which have one code. Each has variables of its own."""
    places = (Place(0, 0x40, Register.RBX if machine == X64 else Register.EBX),)
    functions = [
        Procedure(
            name,
            FUNCTION,
            0x40,
            lines=[(0, SOURCE, 1)],
            parameters=(),
            items=tuple(Local(f"{name}_{number}", "int", places) for number in range(count)),
        )
        for name in names
    ]
    pdb = Pdb(GUID, machine=machine, procedures=functions).to_bytes()
    memory = {BASE + FUNCTION: b"\x90" * 0x60}
    it = Described(folder, pdb, memory, Arch.X64 if machine == X64 else Arch.X86)
    frame = it.frame(**{"rbx" if machine == X64 else "ebx": 5})
    (found,) = frame_reports(it.target, [frame], frozenset(), detail=FrameDetail(variables=True))
    return found


def notes(frame: FrameReport) -> list[str]:
    return [variable_note(row) for row in variable_rows(FrameRow(ProcessSummary(4, "app.exe"), 8, frame))]


@pytest.mark.parametrize(("machine", "register"), [(X86, "ebx"), (X64, "rbx")])
def test_variables_of_a_folded_function_say_whose_they_are(tmp_path, machine, register):
    """`width` and `height` have the same code, so the linker has kept it once. Either may have been called."""
    frame = reported(tmp_path, machine, "width", "height")
    assert frame.note == f"same code as {frame.folded[0]}"
    assert {frame.function, *frame.folded} == {"width", "height"}
    assert [variable.name for variable in frame.locals] == [f"{frame.function}_0"]
    assert notes(frame) == [f"local if this is {frame.function}, {register}"]


def test_those_of_another_function_do_not(tmp_path):
    assert notes(reported(tmp_path, X86, "width")) == ["local, ebx"]


@pytest.mark.parametrize(
    ("count", "note"), [(64, ""), (65, "1 more variable is left out"), (75, "11 more variables are left out")]
)
def test_the_note_of_a_frame_counts_the_variables_that_are_not_shown(tmp_path, count, note):
    frame = reported(tmp_path, X86, "width", count=count)
    assert (len(frame.locals), frame.note) == (64, note)


@pytest.mark.parametrize(
    ("is_brief", "sites"), [(True, ["app!Run+0x8 (nearest)", "app!Run+0x8"]), (False, ["app!Run+0x8"] * 2)]
)
def test_a_name_that_is_only_the_nearest_is_marked_where_symbols_is_not_shown(is_brief: bool, sites: list[str]):
    (column,) = (
        column
        for column in frame_columns(NameStyle.PLAIN, with_fpo=False, is_brief=is_brief)
        if column.title == "Call Site"
    )
    frame = FrameReport(0, Hexadecimal(8), Hexadecimal(16), "app!Run+0x8", "cfi", symbols="export?")
    rows = [FrameRow(ProcessSummary(4, "app.exe"), 8, one) for one in (frame, replace(frame, symbols="export"))]
    assert [column.value(row) for row in rows] == sites


def test_each_stack_has_a_heading_that_says_whose_it_is_and_what_was_thrown():
    process = ProcessSummary(4, "app.exe")
    frame = FrameReport(0, Hexadecimal(8), Hexadecimal(16), "app!Run+0x8", "context")
    rows = [
        FrameRow(process, 8, frame, "context 0x10; cause: CLR", heading="cause: CLR; context 0x10"),
        FrameRow(process, 8, replace(frame, number=1, trust="cfi")),
    ]
    found = list(below_headings(rows))
    assert [(depth, row.title) for depth, row in found] == [
        (0, "app.exe (PID 4): cause: CLR; context 0x10"),
        (1, ""),
        (1, ""),
    ]
    assert [row.frame for _, row in found] == [None, frame, replace(frame, number=1, trust="cfi")]
