# SPDX-License-Identifier: Apache-2.0
"""Exceptions of a process whose library has no readable metadata: recognised by how they are filled, and labelled."""

from __future__ import annotations

import pytest

from tests.support.managed_heap import APP, CORELIB, STACK, ForgedRuntime, Style
from throwstack.core.registers import Arch

LABEL = "taken for an exception by how it is filled: System.Exception itself is not readable"


def without_library(process: ForgedRuntime) -> ForgedRuntime:
    """Take the metadata of the runtime's library away."""
    for page in [page for page in process.pages if CORELIB <= page < CORELIB + 0x100000]:
        del process.pages[page]
    return process


@pytest.mark.parametrize("arch", Arch)
def test_the_last_thrown_object_of_a_thread_is_read_and_labelled_a_guess(arch: Arch) -> None:
    process = ForgedRuntime(Style.ABSOLUTE, arch)
    stack = process.trace((APP, STACK, process.types["Shop.Program"].methods["Main"], 0))
    cause = process.exception("Shop.OrderException", "cause")
    order = process.exception("Shop.OrderException", "no stock", 0x80131601, _innerException=cause, _stackTrace=stack)
    found = without_library(process).thrown(order)
    assert (found.type_name, found.bases, found.message) == ("Shop.OrderException", ("", ""), "no stock")
    assert [frame.method.name for frame in found.stack] == ["Shop.Program.Main"]
    assert [inner.message for inner in found.inner] == ["cause"]
    assert found.reasons[0] == LABEL


@pytest.mark.parametrize(("hresult", "has_stack"), [(0x131500, True), (0x80131500, False)])
def test_an_object_without_a_failure_or_a_stack_is_not_taken_for_one(hresult: int, has_stack: bool) -> None:
    process = ForgedRuntime(Style.ABSOLUTE)
    stack = process.trace((APP, STACK, process.types["Shop.Program"].methods["Main"] if has_stack else STACK, 0))
    process.thread(0x10, process.exception("Shop.OrderException", "no stock", hresult, _stackTrace=stack))
    thrown = without_library(process).runtime().last_thrown(0x10)
    assert thrown.exception is None
    assert thrown.reason == "no exception was found in the runtime's structure of this thread"


@pytest.mark.parametrize("style", [Style.CONTRACT, Style.ABSOLUTE])
def test_an_object_whose_type_is_absent_keeps_its_message_and_stack(style: Style) -> None:
    process = ForgedRuntime(style)
    stack = process.trace((APP, STACK, process.types["Shop.Program"].methods["Main"], 0))
    order = process.exception("Shop.OrderException", "no stock", 0x80131601, _stackTrace=stack)
    process.word(order, 0x7EEE0000)
    found = process.thrown(order)
    assert (found.type_name, found.bases, found.message) == ("", (), "no stock")
    assert [frame.method.name for frame in found.stack] == ["Shop.Program.Main"]
    assert found.reasons[0] == LABEL
    assert found.reasons[1].startswith("class not readable")
