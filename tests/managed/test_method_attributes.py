# SPDX-License-Identifier: Apache-2.0
"""Attributes of methods: what stack traces leave out, and the async method that a state machine was made from."""

from __future__ import annotations

import pytest

from tests.support.attribute_writer import ON_METHOD, ON_TYPE, SERVICES, Attributes
from throwstack.managed.method_attributes import is_hidden, original_method, reflection_name

HIDDEN = "StackTraceHiddenAttribute", "System.Diagnostics"


def test_a_method_is_hidden_by_an_attribute_of_its_own_or_of_its_type() -> None:
    made = Attributes()
    made.writer.type_def("Helper", "Shop")
    made.writer.method("Plain")
    made.writer.method("Marked")
    hidden = made.writer.type_def("Thrower", "Shop")
    made.writer.method("Throw")
    made.add(1, ON_METHOD, "ObsoleteAttribute", "System")
    made.add(2, ON_METHOD, "ObsoleteAttribute", "System")
    made.add(2, ON_METHOD, *HIDDEN)
    made.add(hidden, ON_TYPE, *HIDDEN)
    metadata = made.metadata()
    assert [is_hidden(metadata, method) for method in (1, 2, 3)] == [False, True, True]


@pytest.mark.parametrize(
    ("attribute", "argument", "original"),
    [
        ("AsyncStateMachineAttribute", "Shop.Stock+<Load>d__1", "Shop.Stock.Load(String name)"),
        ("AsyncStateMachineAttribute", "Shop.Stock+<Load>d__1, shop", "Shop.Stock.Load(String name)"),
        ("IteratorStateMachineAttribute", "Shop.Stock+<Load>d__1", "Shop.Stock.Load(String name)+MoveNext()"),
        ("AsyncStateMachineAttribute", "Shop.Stock+<Load>d__2", ""),
        ("OtherAttribute", "Shop.Stock+<Load>d__1", ""),
    ],
)
def test_a_state_machine_has_the_method_whose_attribute_names_it(attribute: str, argument: str, original: str) -> None:
    made = Attributes()
    stock = made.writer.type_def("Stock", "Shop")
    made.writer.method("Load")
    load = made.writer.method("Load", b"\x20\1\1\x0e", ("name",))
    made.writer.type_def("<Load>d__1", inside=stock)
    step = made.writer.method("MoveNext")
    made.writer.method("SetStateMachine")
    made.add(load, ON_METHOD, attribute, SERVICES, argument)
    metadata = made.metadata()
    assert original_method(metadata, step) == original
    assert original_method(metadata, step + 1) == ""
    assert original_method(metadata, load) == ""


def test_reflection_writes_nested_types_with_a_plus() -> None:
    made = Attributes()
    outer = made.writer.type_def("Outer", "Shop.Orders")
    middle = made.writer.type_def("Middle", inside=outer)
    inner = made.writer.type_def("Inner", inside=middle)
    metadata = made.metadata()
    assert reflection_name(metadata, inner) == "Shop.Orders.Outer+Middle+Inner"
    assert reflection_name(metadata, outer) == "Shop.Orders.Outer"
