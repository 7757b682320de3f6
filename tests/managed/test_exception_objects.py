# SPDX-License-Identifier: Apache-2.0
"""Exception objects: inner exceptions, chains that do not end, and what an absent page costs."""

from __future__ import annotations

import pytest

from tests.support.managed_heap import HEAP, ForgedRuntime, Style
from throwstack.managed.managed_exception import ManagedException


def depth(found: ManagedException) -> int:
    return 1 + max((depth(inner) for inner in found.inner), default=0)


def objects(found: ManagedException) -> int:
    return 1 + sum(objects(inner) for inner in found.inner)


def test_an_exception_that_is_its_own_inner_one_is_read_once() -> None:
    process = ForgedRuntime()
    order = process.exception("Shop.OrderException", "round")
    process.word(order + process.types["Shop.OrderException"].fields["_innerException"], order)
    found = process.thrown(order)
    assert found.inner == ()
    assert found.reasons == (f"the inner exception at {order:#x} is shown elsewhere in the chain",)


def test_a_long_chain_ends_with_a_reason() -> None:
    process = ForgedRuntime()
    order = 0
    for number in range(40):
        order = process.exception("Shop.OrderException", str(number), _innerException=order)
    found = process.thrown(order)
    assert depth(found) == 17
    innermost = found
    while innermost.inner:
        innermost = innermost.inner[0]
    assert "left out" in innermost.reasons[0]


def test_aggregates_of_aggregates_end_at_64_objects() -> None:
    process = ForgedRuntime()
    level = [process.exception("Shop.OrderException", str(number)) for number in range(200)]
    while len(level) > 1:
        level = [
            process.exception(
                "System.AggregateException", "many", _innerExceptions=process.references(*level[at : at + 20])
            )
            for at in range(0, len(level), 20)
        ]
    assert objects(process.thrown(level[0])) == 64


def test_an_aggregate_has_all_its_inner_exceptions_and_their_messages() -> None:
    process = ForgedRuntime()
    first = process.exception("Shop.OrderException", "work 0 failed")
    second = process.exception("System.ArgumentException", "bad", _paramName=process.string("key"))
    many = process.exception(
        "System.AggregateException",
        "One or more errors occurred.",
        _innerException=first,
        _innerExceptions=process.references(first, second),
    )
    found = process.thrown(many)
    assert [inner.address for inner in found.inner] == [first, second]
    assert found.message == "One or more errors occurred. (work 0 failed) (bad (Parameter 'key'))"


def test_of_an_aggregate_a_lost_inner_exception_is_a_reason_and_a_gap_in_the_message() -> None:
    process = ForgedRuntime()
    first = process.exception("Shop.OrderException", "work 0 failed")
    process.allocate(HEAP, 0x1000)
    second = process.exception("Shop.OrderException", "work 1 failed")
    process.allocate(HEAP, 0x1000)
    items = process.references(first, second)
    many = process.exception("System.AggregateException", "Errors.", _innerExceptions=items)
    del process.pages[first & -0x1000]
    found = process.thrown(many)
    assert [inner.address for inner in found.inner] == [second]
    assert found.message == "Errors. (…) (work 1 failed)"
    assert f"there is no exception object at {first:#x}, where the inner one should be" in found.reasons


def test_an_inner_exception_that_is_none_is_a_reason() -> None:
    process = ForgedRuntime()
    order = process.exception("Shop.OrderException", "outer", _innerException=process.string("no exception"))
    found = process.thrown(order)
    assert (found.message, found.inner) == ("outer", ())
    assert "there is no exception object at" in found.reasons[0]


@pytest.mark.parametrize("style", Style)
def test_a_message_on_an_absent_page_is_unknown_and_not_the_default_one(style: Style) -> None:
    process = ForgedRuntime(style)
    order = process.exception("Shop.OrderException", None, _message=HEAP + 0x100000)
    process.word(order + process.types["Shop.OrderException"].fields["_message"], HEAP + 0x100000)
    found = process.thrown(order)
    assert (found.type_name, found.message) == ("Shop.OrderException", None)
    assert "message not readable" in found.reasons[0]


@pytest.mark.parametrize("style", Style)
def test_a_class_whose_metadata_are_absent_has_no_name_but_a_reason(style: Style) -> None:
    process = ForgedRuntime(style)
    order = process.exception("Shop.OrderException", "no stock")
    for page in [page for page in process.pages if 0x30000000 <= page < 0x31000000]:
        del process.pages[page]
    found = process.thrown(order)
    assert (found.type_name, found.message) == ("", "no stock")
    assert found.bases == ("System.Exception", "System.Object")
    assert found.reasons[0].startswith("class not readable")


def test_a_message_of_control_characters_is_escaped() -> None:
    process = ForgedRuntime()
    assert process.thrown(process.exception("Shop.OrderException", "a\x1b[31m\r\nb")).message == r"a\x1b[31m\r\nb"


def test_a_string_that_claims_more_than_memory_has_is_a_reason() -> None:
    process = ForgedRuntime()
    order = process.exception("Shop.OrderException", None)
    process.word(
        order + process.types["Shop.OrderException"].fields["_message"], process.string("x", claimed=0x7FFFFFFF)
    )
    found = process.thrown(order)
    assert found.message is None
    assert "claims 2,147,483,647 characters" in found.reasons[0]


def test_the_text_of_a_stack_from_elsewhere_is_kept() -> None:
    process = ForgedRuntime()
    order = process.exception("Shop.OrderException", "x")
    text = process.string("   at Far.Away()\r\n")
    process.word(order + process.types["Shop.OrderException"].fields["_remoteStackTraceString"], text)
    assert process.thrown(order).remote_stack == r"   at Far.Away()\r\n"
