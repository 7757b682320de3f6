# SPDX-License-Identifier: Apache-2.0
"""The comparison notices each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.live.capture import Capture, CapturedThread
from tests.managed_live.managed_compare import SeenException, SeenFrame, compare, row_problems
from tests.managed_live.managed_fixtures import DECOYS, ORDER

THREW = 8
CAPTURE = Capture("x64", 4, 0x7000, None, [], [], [CapturedThread(tid, 0, 0, 0, {}) for tid in range(8, 68, 4)])


def frame(method: str, *, is_last_of_earlier: bool = False) -> dict[str, Any]:
    return {"method": method, "parameters": "Int32 number", "is_last_of_earlier": is_last_of_earlier}


def truth(scenario: str = "inner", runtime: str = "8.0-x64", **changed: Any) -> dict[str, Any]:
    exception = {"type": "System.FormatException", "message": "deepest", "frames": [frame("Shop.A")], "inner": []}
    for level in (1, 2, 3):
        frames = [frame("Shop.B", is_last_of_earlier=True), frame("Shop.C")]
        exception = {"type": ORDER, "message": f"level {level}", "frames": frames, "inner": [exception]}
    decoys = [{"tid": 12 + 4 * index, "name": name, "frames": []} for index, name in enumerate(DECOYS)]
    return {
        "scenario": scenario, "runtime": runtime, "tid": THREW, "exception": exception, "decoys": decoys, **changed,
    }  # fmt: skip


def seen(exception: Mapping[str, Any]) -> SeenException:
    frames = [
        SeenFrame(f"{one['method']}({one['parameters']})", one["is_last_of_earlier"]) for one in exception["frames"]
    ]
    inner = tuple(seen(one) for one in exception["inner"])
    return SeenException(exception["type"], exception["message"], tuple(frames), inner)


SEEN = seen(truth()["exception"])


def test_what_was_printed_and_read_agrees():
    found = compare(CAPTURE, truth(), SEEN)

    assert not found.problems
    assert (found.exceptions, found.types, found.messages, found.frames, found.names) == (4, 4, 4, 7, 7)


def test_where_nothing_was_read_the_truth_is_compared_with_the_program():
    found = compare(CAPTURE, truth())

    assert not found.problems
    assert (found.exceptions, found.types, found.frames) == (4, 0, 7)


HIDDEN = SeenFrame("System.ThrowHelper.Throw()")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (replace(SEEN, type="System.Exception"), f"System.Exception, printed is {ORDER}"),
        (replace(SEEN, message=None), "message None, printed is 'level 3'"),
        (replace(SEEN, hresult=0x80131500), f"{ORDER} has HRESULT 0x80131500, not 0x80131601"),
        (replace(SEEN, inner=()), "1 exceptions, printed are 4"),
        (replace(SEEN, frames=SEEN.frames[1:]), "no frame Shop.B(Int32 number)"),
        (replace(SEEN, frames=SEEN.frames[::-1]), "no frame Shop.C(Int32 number)"),
        (replace(SEEN, frames=(*SEEN.frames, SeenFrame("Shop.D()"))), "a frame Shop.D(), which was not printed"),
        (
            replace(SEEN, frames=tuple(SeenFrame(one.name) for one in SEEN.frames)),
            "an earlier stack does not end with Shop.B(Int32 number)",
        ),
    ],
)
def test_what_was_read_differs(changed: SeenException, problem: str):
    assert problem in compare(CAPTURE, truth(), changed).problems


def test_a_blank_in_the_place_of_a_parameters_name_is_not_compared():
    printed = {"method": "dyn_calc", "parameters": "Int32 , String ", "is_last_of_earlier": False}
    exception = {**truth()["exception"], "frames": [printed]}

    found = compare(CAPTURE, truth(exception=exception), replace(SEEN, frames=(SeenFrame("dyn_calc(Int32, String)"),)))

    assert not found.problems


def test_frames_that_the_runtime_hides_may_be_there():
    assert not compare(CAPTURE, truth(), replace(SEEN, frames=(HIDDEN, *SEEN.frames))).problems


def test_net_core_2_prints_the_first_inner_exception_of_several():
    inner = {"type": "System.InvalidOperationException", "message": "a", "frames": [], "inner": []}
    several = {"type": "System.AggregateException", "message": "m", "frames": [frame("Shop.A")], "inner": [inner]}

    assert not compare(CAPTURE, truth("task", "2.1-x86", exception=several)).problems
    assert compare(CAPTURE, truth("task", "8.0-x64", exception=several)).problems


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (truth("null"), "the program throws System.NullReferenceException"),
        (truth(decoys=truth()["decoys"][1:]), "the program noted the threads decoy in-catch"),
        (truth(tid=12), "thread 12 threw, and was to wait only"),
        (truth(decoys=[*truth()["decoys"][1:], {"tid": 3, "name": DECOYS[0]}]), "not captured: decoy handled"),
    ],
)
def test_a_fixture_that_is_wrong_itself(wrong: dict[str, Any], problem: str):
    assert any(problem in one for one in compare(CAPTURE, wrong).problems)


def test_only_the_thread_that_threw_has_a_row():
    assert not row_problems(truth(), [{"TID": THREW}])
    assert row_problems(truth(), []) == ["no rows of thread 8, which threw"]
    assert row_problems(truth(), [{"TID": THREW}, {"TID": 12}, {"TID": 999}]) == [
        "a row of thread 12 (decoy handled)",
        "a row of thread 999 (not noted)",
    ]
