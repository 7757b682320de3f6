# SPDX-License-Identifier: Apache-2.0
"""What is special to .NET Framework: it is labelled experimental, and nothing is said without proof."""

from __future__ import annotations

import pytest

from tests.support.managed_heap import ForgedRuntime, Style
from throwstack.core.registers import Arch

FRAMEWORKS = pytest.mark.parametrize("style", [Style.FRAMEWORK_4, Style.FRAMEWORK_2])


@FRAMEWORKS
def test_it_is_experimental_and_has_its_name(style: Style) -> None:
    runtime = ForgedRuntime(style).runtime()
    assert runtime.is_experimental
    assert runtime.version.startswith(".NET Framework")
    assert not ForgedRuntime(Style.ABSOLUTE).runtime().is_experimental


@FRAMEWORKS
@pytest.mark.parametrize("arch", Arch)
def test_an_aggregate_has_its_stored_message_alone(style: Style, arch: Arch) -> None:
    process = ForgedRuntime(style, arch, old_messages=True)
    inner = process.exception("System.ArgumentException", "bad", _paramName=process.string("key"))
    many = process.exception("System.AggregateException", "many", _innerExceptions=process.references(inner))
    found = process.thrown(many)
    assert found.message == "many"
    assert [item.message for item in found.inner] == [r"bad\r\nParameter name: key"]


@FRAMEWORKS
def test_a_type_whose_methods_do_not_prove_its_row_has_no_name(style: Style) -> None:
    """The class has the token of another type: its methods belong to the real one."""
    process = ForgedRuntime(style)
    order = process.exception("Shop.OrderException", "no stock")
    table = process.types["Shop.OrderException"].method_table
    if style is Style.FRAMEWORK_2:
        eeclass = int.from_bytes(process.memory.read(table + 0x28, 8), "little")
        process.place(eeclass + 0x40, b"\2\0\0\2")
    else:
        process.place(table + 10, b"\2\0")
    found = process.thrown(order)
    assert (found.type_name, found.message) == ("", "no stock")
    assert found.reasons[0].startswith("class not readable")
