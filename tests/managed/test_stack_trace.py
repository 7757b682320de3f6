# SPDX-License-Identifier: Apache-2.0
"""The recorded stack: its two forms, and what a damaged one gives."""

from __future__ import annotations

import pytest

from tests.support.managed_heap import APP, STACK, ForgedRuntime, Style
from tests.support.thrown_objects import TID
from throwstack.core.budgets import BUDGETS
from throwstack.core.registers import Arch
from throwstack.managed.managed_exception import ManagedMethod


@pytest.mark.parametrize("arch", Arch)
@pytest.mark.parametrize("in_objects", [False, True])
def test_the_stack_is_an_array_of_bytes_or_the_first_element_of_an_array_of_objects(
    arch: Arch, in_objects: bool
) -> None:
    process = ForgedRuntime(Style.CONTRACT, arch)
    main = process.types["Shop.Program"].methods["Main"]
    stack = process.trace((APP, STACK, main, 0), (0, STACK + 8, main, 0), in_objects=in_objects)
    found = process.thrown(process.exception("Shop.OrderException", "x", _stackTrace=stack))
    assert [(frame.ip, frame.sp, frame.method.name) for frame in found.stack] == [
        (APP, STACK, "Shop.Program.Main"),
        (0, STACK + 8, "Shop.Program.Main"),
    ]


def test_a_stack_that_claims_more_frames_than_it_has_room_for_gives_these_and_a_reason() -> None:
    process = ForgedRuntime()
    stack = process.trace((APP, STACK, process.types["Shop.Program"].methods["Main"], 0), claimed=0xFFFFFFFF)
    found = process.thrown(process.exception("Shop.OrderException", "x", _stackTrace=stack))
    assert len(found.stack) == 1
    assert found.reasons == ("the recorded stack claims 4,294,967,295 frames, and has room for 1",)


def test_of_a_deep_stack_the_first_thousand_frames_are_read() -> None:
    process = ForgedRuntime()
    frame = (APP, STACK, process.types["Shop.Program"].methods["Main"], 0)
    found = process.thrown(process.exception("Shop.OrderException", "x", _stackTrace=process.trace(*[frame] * 1200)))
    assert len(found.stack) == 1000
    assert found.reasons == ("the first 1,000 of 1,200 frames of the recorded stack are shown",)


def test_frames_with_long_names_spend_the_budget_of_the_exception_and_leave_its_class_and_message() -> None:
    process = ForgedRuntime()
    main = process.types["Shop.Program"].methods["Main"]
    stack = process.trace(*[(APP, STACK, main, 0)] * 1000)
    process.thread(TID, process.exception("Shop.OrderException", "no stock", _stackTrace=stack))
    runtime = process.runtime()
    runtime.methods._known[main] = ManagedMethod("N" * 128 * 100)
    found = runtime.exception_of(TID)
    assert found is not None
    assert (found.type_name, found.message) == ("Shop.OrderException", "no stock")
    assert 500 < len(found.stack) < BUDGETS.managed.thread // 100
    assert "of 1,000 frames of the recorded stack are shown: the budget" in found.reasons[0]


def test_a_frame_of_no_genuine_method_is_kept_without_a_name() -> None:
    process = ForgedRuntime()
    stack = process.trace((APP, STACK, STACK, 0))
    found = process.thrown(process.exception("Shop.OrderException", "x", _stackTrace=stack))
    assert [(frame.ip, frame.method.name, frame.method.reason) for frame in found.stack] == [
        (APP, "", "no method is known at this address")
    ]


@pytest.mark.parametrize("kind", ["string", "objects", "absent"])
def test_what_is_no_stack_is_a_reason(kind: str) -> None:
    process = ForgedRuntime()
    values = {"string": process.string("x"), "objects": process.references(0), "absent": 0x48000000}
    found = process.thrown(process.exception("Shop.OrderException", "x", _stackTrace=values[kind]))
    assert (found.stack, found.message) == ((), "x")
    assert found.reasons[0].startswith("the recorded stack")
