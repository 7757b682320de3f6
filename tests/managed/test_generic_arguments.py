# SPDX-License-Identifier: Apache-2.0
"""Names of instantiated generic types."""

from __future__ import annotations

import pytest

from tests.support.managed_heap import STACK, ForgedRuntime, Style
from throwstack.core.registers import Arch


@pytest.mark.parametrize("arch", Arch)
@pytest.mark.parametrize("style", Style)
def test_type_arguments_are_in_brackets(style: Style, arch: Arch) -> None:
    process = ForgedRuntime(style, arch)
    order, number = process.types["Shop.OrderException"].method_table, process.types["System.Int32"].method_table
    inner = process.types[process.instantiate("Shop.Failure`1", number)].method_table
    failure = process.instantiate("Shop.Failure`1", order, inner)
    found = process.thrown(process.exception(failure, None))
    assert found.type_name == "Shop.Failure`1[Shop.OrderException,Shop.Failure`1[System.Int32]]"
    assert found.message == f"Exception of type '{found.type_name}' was thrown."


def test_an_argument_that_is_no_type_leaves_the_name_without_arguments() -> None:
    process = ForgedRuntime()
    failure = process.instantiate("Shop.Failure`1", STACK)
    assert process.thrown(process.exception(failure, "x")).type_name == "Shop.Failure`1"


def test_a_type_that_is_its_own_argument_ends() -> None:
    process = ForgedRuntime()
    failure = process.instantiate("Shop.Failure`1", 0)
    table = process.types[failure].method_table
    own = int.from_bytes(
        process.memory.read(int.from_bytes(process.memory.read(table + 0x30, 8), "little"), 8), "little"
    )
    process.word(own, table)
    assert process.thrown(process.exception(failure, "x")).type_name.count("Failure") == 5
