# SPDX-License-Identifier: Apache-2.0
"""The recorded stack of a .NET exception as frames, and its inner exceptions, each with its own."""

from __future__ import annotations

from dataclasses import replace

from tests.support.managed_code import compile_method, managed_code
from tests.support.managed_heap import STACK, ForgedRuntime
from throwstack.core.memory import memory_of
from throwstack.images.image import ImageMap
from throwstack.images.modules import ModuleMap
from throwstack.managed.managed_exception import ManagedException, ManagedFrame, ManagedMethod
from throwstack.names.symbols import Name, Symbols
from throwstack.report.managed_report import inner_exceptions, logical_stack
from throwstack.report.values import Hexadecimal

PLACE = ManagedMethod("Shop.Orders.Place", "(String name)", "Shop.Orders", "shop.dll")
MAIN = ManagedMethod("Shop.Program.Main", "(String[] args)", "Shop.Program", "shop.dll")
THROW = ManagedMethod(
    "System.ThrowHelper.Throw", "()", "System.ThrowHelper", "System.Private.CoreLib.dll", is_hidden=True
)
MOVE_NEXT = ManagedMethod(
    "Shop.Orders.<Load>d__1.MoveNext",
    "()",
    "Shop.Orders.<Load>d__1",
    "shop.dll",
    original="Shop.Orders.Load(Int32 count)",
)
NOWHERE = Symbols(ImageMap(memory_of({}), ModuleMap([])))


def thrown(*stack: ManagedFrame, message: str = "no", inner: tuple[ManagedException, ...] = ()) -> ManagedException:
    return ManagedException("Shop.OrderException", (), message, 0x80131601, 0x400, 0, inner, stack)


def frame(method: ManagedMethod, ip: int = 0x100, *, ends: bool = False) -> ManagedFrame:
    return ManagedFrame(ip, ip + 0x1000, 0, method, is_end_of_earlier_stack=ends)


def test_offsets_are_those_of_the_method_and_an_ip_inside_a_call_is_that_of_the_return_address() -> None:
    process = ForgedRuntime()
    run = process.types["Shop.Program"].methods["Run"]
    start = compile_method(process, run)
    stack = process.trace((start + 0x1E, STACK, run, 0), (start + 0x2F, STACK + 8, run, 2))
    found = process.thrown(process.exception("Shop.OrderException", "no", _stackTrace=stack))
    symbols = Symbols(process.images, name_outside=managed_code(process).name_outside)
    assert [(item.name, item.ip) for item in logical_stack(found, symbols)] == [
        ("shop!Shop.Program.Run(String name, Int32 count)+0x1e", start + 0x1E),
        ("shop!Shop.Program.Run(String name, Int32 count)+0x30", start + 0x30),
    ]


def test_an_offset_that_is_lost_with_the_methods_code_is_a_note() -> None:
    symbols = Symbols(
        ImageMap(memory_of({}), ModuleMap([])), name_outside=lambda at: Name(at, reason="its page is lost")
    )
    assert logical_stack(thrown(frame(PLACE)), symbols)[0].note == "offset not known: its page is lost"


def test_frames_are_numbered_and_say_that_they_are_recorded() -> None:
    first, second = logical_stack(thrown(frame(PLACE), frame(MAIN, 0x200)), NOWHERE)
    assert (first.number, first.name, first.sp) == (0, "shop!Shop.Orders.Place(String name)", 0x1100)
    assert (second.number, second.module, second.function) == (1, "shop", "Shop.Program.Main(String[] args)")
    assert (first.trust, first.symbols, first.note) == ("recorded", "clr", "")


def test_an_earlier_stack_ends_with_a_note_and_hidden_frames_are_left_out() -> None:
    stack = logical_stack(thrown(frame(PLACE), frame(MOVE_NEXT, ends=True), frame(THROW), frame(MAIN)), NOWHERE)
    assert [(item.function, item.note) for item in stack] == [
        ("Shop.Orders.Place(String name)", ""),
        (
            "Shop.Orders.Load(Int32 count)",
            "compiled as Shop.Orders.<Load>d__1.MoveNext; end of stack trace from previous location",
        ),
        ("Shop.Program.Main(String[] args)", ""),
    ]


def test_the_outermost_frame_is_shown_although_it_is_hidden() -> None:
    assert [item.function for item in logical_stack(thrown(frame(PLACE), frame(THROW)), NOWHERE)] == [
        "Shop.Orders.Place(String name)",
        "System.ThrowHelper.Throw()",
    ]


def test_the_end_of_an_earlier_stack_is_told_also_where_its_last_frame_is_hidden() -> None:
    stack = logical_stack(thrown(frame(PLACE), frame(THROW, ends=True), frame(MAIN)), NOWHERE)
    assert [(item.function, item.note) for item in stack] == [
        ("Shop.Orders.Place(String name)", "end of stack trace from previous location"),
        ("Shop.Program.Main(String[] args)", ""),
    ]


def test_a_frame_without_a_name_is_its_address_with_the_reason() -> None:
    lost = replace(PLACE, name="", parameters="", module="", reason="memory at 0x20 is not readable")
    (found,) = logical_stack(thrown(frame(lost)), NOWHERE)
    assert (found.name, found.symbols, found.note) == ("0x100", "", "memory at 0x20 is not readable")


def test_inner_exceptions_are_nested_with_address_and_stack() -> None:
    cause = replace(thrown(frame(PLACE), message="cause"), address=0x600)
    middle = replace(thrown(message="middle", inner=(cause,)), address=0x500)
    (found,) = inner_exceptions(thrown(inner=(middle,)), NOWHERE)
    assert (found.type, found.message, found.address) == ("Shop.OrderException", "middle", Hexadecimal(0x500))
    assert [(item.message, item.hresult, item.address) for item in found.inner] == [
        ("cause", Hexadecimal(0x80131601), Hexadecimal(0x600))
    ]
    assert [item.function for item in found.inner[0].logical_stack] == ["Shop.Orders.Place(String name)"]
