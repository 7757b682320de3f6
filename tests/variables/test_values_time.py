# SPDX-License-Identifier: Apache-2.0
"""How many values a frame has, and how long they may take, where a PDB was made to waste time."""

from __future__ import annotations

import pytest

from tests.support.described_frames import Described, described
from tests.support.pdb_model import X64, X86, Inline, Local, Member, Place, Register, Structure
from throwstack.pdb.time_limit import FRAME_LIMIT, LIMIT
from throwstack.variables.frame_values import FrameScopes, frame_variables
from throwstack.variables.value_text import ValueText

TOO_LONG = f"given up: making the values of variables took more than {FRAME_LIMIT:.0f} s"


def register(machine: int) -> Register:
    return Register.RBX if machine == X64 else Register.EBX


def of_frame(it: Described) -> FrameScopes:
    values = {"rbx": 5} if it.arch.pointer_size == 8 else {"ebx": 5}
    frame = it.frame(0x18, **values)
    functions = len(it.target.symbols.frames_at(frame.ip, is_return_address=True))
    return frame_variables(it.target, frame, None, functions, is_doubtful=False)


@pytest.fixture
def _slow(monkeypatch):
    """The seconds. Each number that is written takes three of them."""
    seconds = [100.0]
    write = ValueText._scalar

    def scalar(self, plain, data):
        seconds[0] += 3
        return write(self, plain, data)

    monkeypatch.setattr("throwstack.pdb.time_limit.time.monotonic", lambda: seconds[0])
    monkeypatch.setattr(ValueText, "_scalar", scalar)


@pytest.mark.usefixtures("_slow")
@pytest.mark.parametrize("machine", [X86, X64])
def test_a_frame_that_takes_too_long_has_that_as_the_reason_of_what_is_left(tmp_path, machine):
    places = (Place(0, 0x40, register(machine)),)
    it = described(tmp_path, *(Local(f"v{n}", "int", places) for n in range(4)), machine=machine)
    for _ in range(2):  # it is so for each frame anew
        (found,) = of_frame(it)
        assert [(one.text, one.reason) for one in found] == [("5", ""), ("5", ""), ("", TOO_LONG), ("", TOO_LONG)]


@pytest.mark.usefixtures("_slow")
@pytest.mark.parametrize("machine", [X86, X64])
def test_after_two_minutes_no_more_values_are_made_and_names_go_on(tmp_path, machine):
    said: list[str] = []
    it = described(tmp_path, Local("v", "int", (Place(0, 0x40, register(machine)),)), machine=machine, say=said.append)
    answers = [bool(of_frame(it)) for _ in range(60)]
    assert answers == [True] * (int(LIMIT) // 3 + 1) + [False] * (59 - int(LIMIT) // 3)
    (line,) = said
    assert line.endswith("app.pdb: given up: making the values of variables took more than 120 s")
    assert str(it.target.symbols.name(it.frame(0x30).ip)) == "app!f+0x30"


def test_a_frame_has_256_variables_with_those_of_its_inlined_functions(tmp_path):
    """60 functions inlined into each other, each with 64 structures: of a PDB that was made to be slow."""
    numbers = Structure(24, tuple(Member(f"m{n}", "int", 4 * n) for n in range(6)))
    places = (Place(0, 0x40, offset=8, register=Register.EBX),)
    nested: list[Inline] = []
    for depth in range(60):
        items = tuple(Local(f"v{n}", "Numbers", places) for n in range(64))
        nested = [Inline(f"g{depth}", r"d:\a.h", 1, [(0, 0x40, 1)], nested, items)]
    it = described(tmp_path, inlines=nested, lines=[(0, r"d:\a.c", 1)], types={"Numbers": numbers})
    scopes = of_frame(it)
    assert [len(one.variables) for one in scopes] == [64] * 4 + [0] * 57
    assert [one.left_out for one in scopes] == [0] * 4 + [64] * 56 + [0]
