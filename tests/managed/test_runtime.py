# SPDX-License-Identifier: Apache-2.0
"""A process with a runtime, whole: which threads threw what, in each layout and on both architectures."""

from __future__ import annotations

import pytest

from tests.support.managed_heap import APP, STACK, ForgedRuntime, Style
from throwstack.core.memory import Memory, memory_of
from throwstack.core.registers import Arch
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.managed.runtime import Runtime

EVERY = pytest.mark.parametrize(("style", "arch"), [(style, arch) for style in Style for arch in Arch])


@EVERY
def test_the_last_thrown_exception_of_a_thread_has_class_message_inner_exception_and_stack(
    style: Style, arch: Arch
) -> None:
    process = ForgedRuntime(style, arch)
    methods = process.types["Shop.Program"].methods
    cause = process.exception("System.ArgumentException", "no number", 0x80070057)
    stack = process.trace(
        (APP + 0x10, STACK, methods["Run"], 0),
        (APP + 0x20, STACK + 0x40, process.dynamic_method("dyn_calc"), 1),
        (APP + 0x30, STACK + 0x80, methods["Main"], 2),
    )
    order = process.exception("Shop.OrderException", "no stock", 0x80131601, _innerException=cause, _stackTrace=stack)
    process.thread(0x10, name="idle")
    process.thread(0x14, order, "worker")
    runtime = process.runtime()

    found = runtime.exception_of(0x14)
    assert found is not None
    assert (found.type_name, found.bases) == ("Shop.OrderException", ("System.Exception", "System.Object"))
    assert (found.message, found.hresult, found.address) == ("no stock", 0x80131601, order)
    assert [(inner.type_name, inner.message) for inner in found.inner] == [("System.ArgumentException", "no number")]
    assert [(frame.ip, frame.sp, frame.method.name + frame.method.parameters) for frame in found.stack] == [
        (APP + 0x10, STACK, "Shop.Program.Run(String name, Int32 count)"),
        (APP + 0x20, STACK + 0x40, "dyn_calc(Int32, String)"),
        (APP + 0x30, STACK + 0x80, "Shop.Program.Main(String name, Int32 count)"),
    ]
    assert [frame.is_end_of_earlier_stack for frame in found.stack] == [False, True, False]
    assert [frame.is_before_return for frame in found.stack] == [False, False, True]
    assert found.reasons == ()
    assert (runtime.thread_name(0x14), runtime.thread_name(0x10)) == ("worker", "idle")


@EVERY
def test_a_thread_that_threw_nothing_has_a_reason_and_not_the_exception_of_its_neighbour(
    style: Style, arch: Arch
) -> None:
    process = ForgedRuntime(style, arch)
    process.thread(0x10)
    process.thread(0x14, process.exception("Shop.OrderException", "no stock"))
    runtime = process.runtime()
    assert runtime.exception_of(0x14) is not None
    assert runtime.last_thrown(0x10).exception is None
    assert runtime.last_thrown(0x10).reason == "the runtime keeps no exception of this thread"
    assert process.runtime().exception_of(0x10) is None


def test_a_thread_that_never_ran_managed_code_has_no_structure_of_the_runtime() -> None:
    process = ForgedRuntime()
    process.thread(0x10, process.exception("Shop.OrderException", "no stock"))
    process.threads.append((0x18, 0x61000000))
    assert process.runtime().last_thrown(0x18).reason == "no structure of the runtime was found for this thread"


@EVERY
def test_exceptions_are_found_by_the_words_of_a_stack_without_the_thread(style: Style, arch: Arch) -> None:
    process = ForgedRuntime(style, arch)
    handled = process.exception("System.ArgumentException", "handled")
    thrown = process.exception("Shop.OrderException", "no stock")
    broken = process.exception("Shop.OrderException", None, _message=process.references(1, 2))
    process.word(broken + process.types["Shop.OrderException"].fields["_message"], 0x12345)
    words = [
        7,
        process.types["Shop.OrderException"].method_table,
        process.string("text"),
        broken,
        thrown,
        handled,
        thrown,
    ]
    for index, word in enumerate(words):
        process.word(STACK + index * process.size, word)
    found = process.runtime().exceptions_on_stack(STACK, STACK + 0x200)
    assert [(item.place, item.exception.message) for item in found] == [
        (STACK + 4 * process.size, "no stock"),
        (STACK + 5 * process.size, "handled"),
    ]
    process.word(STACK + 0x2000, handled)
    beyond = process.runtime().exceptions_on_stack(STACK + 0x500, STACK + 0x3000)
    assert [(item.place, item.exception.message) for item in beyond] == [(STACK + 0x2000, "handled")]


def test_a_process_without_a_runtime_costs_a_look_at_names_and_at_no_page_of_its_dlls() -> None:
    class Pages:
        def page(self, address: int) -> bytes | None:
            message = f"{address:#x} was read"
            raise AssertionError(message)

    memory = Memory(Pages())
    modules = ModuleMap([Module("ntdll.dll", "", 0x10000000, 0x1000), Module("kernel32.dll", "", 0x20000000, 0x1000)])
    assert Runtime.find(memory, ImageMap(memory, modules), [(1, 0x7FFE0000)]) is None


def test_an_exe_without_exports_is_no_runtime() -> None:
    memory = memory_of({0x400000: b"MZ".ljust(0x1000, b"\0")})
    modules = ModuleMap([Module("app.exe", "", 0x400000, 0x1000)])
    assert Runtime.find(memory, ImageMap(memory, modules), []) is None


def without_type(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make contracts that do not describe the type `name`."""
    whole = ForgedRuntime.contract

    def poor(self: ForgedRuntime) -> dict[str, object]:
        said = whole(self)
        types = said["types"]
        assert isinstance(types, dict)
        del types[name]
        return said

    monkeypatch.setattr(ForgedRuntime, "contract", poor)


def test_a_contract_that_lacks_what_is_needed_is_left_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    without_type(monkeypatch, "MethodTable")
    process = ForgedRuntime(Style.CONTRACT)
    process.thread(0x10, process.exception("Shop.OrderException", "no stock"))
    found = process.runtime().exception_of(0x10)
    assert found is not None
    assert found.message == "no stock"


def test_a_contract_that_does_not_lead_to_images_leaves_them_to_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    without_type(monkeypatch, "PEImageLayout")
    process = ForgedRuntime(Style.CONTRACT)
    found = process.thrown(process.exception("Shop.OrderException", "no stock"))
    assert (found.type_name, found.message, found.reasons) == ("Shop.OrderException", "no stock", ())
