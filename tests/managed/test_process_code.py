# SPDX-License-Identifier: Apache-2.0
"""Managed code as walks, names and reports ask for it: whole, with its metadata lost, and where there is none."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from tests.support import ready_to_run_image as r2r
from tests.support.managed_code import CODE, HEADER, compile_method, managed_code
from tests.support.managed_heap import APP, RUNTIME, ForgedRuntime, Style
from tests.support.metadata_writer import INT32, STRING, signature
from throwstack.core.budgets import BUDGETS, Budget
from throwstack.core.memory import PAGE_SIZE, Memory
from throwstack.core.regions import Region, RegionKind
from throwstack.core.registers import Arch
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.managed.process_code import FramesOfProcess, ManagedCode
from throwstack.managed.runtime import Runtime
from throwstack.names.frame_records import FrameData
from throwstack.names.symbols import SymbolKind, Symbols

SPENT = Budget("places", 0, 0, 0, 0)
FRAME = FrameData(
    rva=0,
    size=1,
    prologue_size=0,
    parameters_size=0,
    saved_registers_size=0,
    locals_size=0,
    program="",
    uses_base_pointer=False,
)


def test_a_method_is_named_with_its_assembly_and_its_parameters_and_counted_from_its_begin() -> None:
    process = ForgedRuntime()
    start = compile_method(process, process.types["Shop.Program"].methods["Run"])
    name = managed_code(process).name_outside(start + 0x1E)
    assert name is not None
    assert str(name) == "shop!Shop.Program.Run(String name, Int32 count)+0x1e"
    assert (name.kind, name.provenance, name.is_certain) == (SymbolKind.CLR, "clr", True)


def test_a_method_that_was_made_at_run_time_is_in_no_file() -> None:
    process = ForgedRuntime()
    start = compile_method(process, process.dynamic_method("dyn_calc"))
    assert str(managed_code(process).name_outside(start)) == "<dynamic>!dyn_calc(Int32, String)"


def test_the_unwinder_gets_the_methods_entry_and_base() -> None:
    process = ForgedRuntime()
    start = compile_method(process, process.types["Shop.Program"].methods["Run"])
    found = managed_code(process).function_at(start + 0x10)
    assert found is not None
    assert found.entry is not None
    assert found.base + found.entry.begin == start
    assert found.name == "Shop.Program.Run"


def test_a_method_whose_metadata_are_lost_is_unwound_and_the_note_says_why_it_has_no_name() -> None:
    process = ForgedRuntime()
    start = compile_method(process, process.types["Shop.Program"].methods["Run"])
    for page in [page for page in process.pages if APP <= page < APP + 0x8000]:
        del process.pages[page]
    code = managed_code(process)
    found = code.function_at(start + 0x10)
    assert found is not None
    assert found.entry is not None
    assert found.name == ""
    name = code.name_outside(start + 0x10)
    assert name is not None
    assert (name.symbol, str(name)) == ("", hex(start + 0x10))
    assert name.reason.startswith("managed method, name not readable: the headers of the image at ")


@pytest.mark.parametrize(("style", "word"), [(Style.CONTRACT, ""), (Style.FRAMEWORK_4, "IntPtr")])
def test_a_function_pointer_is_called_as_that_runtime_calls_it(style: Style, word: str) -> None:
    process = ForgedRuntime(style)
    start = compile_method(process, process.dynamic_method("calc", signature(b"\x1b\0\1\1" + STRING, INT32)))
    assert str(managed_code(process).name_outside(start)) == f"<dynamic>!calc({word}, Int32)"


def test_code_that_is_no_method_is_not_known() -> None:
    process = ForgedRuntime()
    compile_method(process, process.types["Shop.Program"].methods["Run"])
    code = managed_code(process)
    assert code.function_at(CODE + 0x800) is None
    assert code.name_outside(CODE + 0x800) is None


def test_a_process_without_a_runtime_costs_no_read() -> None:
    class Untouched:
        def page(self, address: int) -> bytes | None:
            raise AssertionError(hex(address))

    memory = Memory(Untouched())
    images = ImageMap(memory, ModuleMap([Module("service.dll", "", RUNTIME, 0x1000)]))
    code = ManagedCode(memory, images, None, list)
    assert (code.runtime, code.function_at(CODE), code.name_outside(CODE)) == (None, None, None)
    assert code.last_thrown(4) == (None, "the process has no runtime")
    assert code.exceptions_on_stack(0x1000, 0x2000) == ()
    assert not code.is_in_runtime(RUNTIME)


@pytest.mark.usefixtures("caught")
def test_a_runtime_that_cannot_be_used_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Runtime, "__init__", fail)
    code = managed_code(ForgedRuntime())
    assert code.runtime is None
    assert code.why_overlooked == "the runtime of the process cannot be used: unexpected ZeroDivisionError"
    assert code.last_thrown(4) == (None, "the runtime of the process cannot be used: unexpected ZeroDivisionError")


def test_threads_are_asked_for_when_there_is_a_runtime_and_once() -> None:
    process, asked = ForgedRuntime(), []
    code = ManagedCode(process.memory, process.images, None, lambda: asked.append(1) or process.threads)
    assert not asked
    code.name_outside(CODE)
    code.name_outside(CODE)
    assert asked == [1]
    assert code.is_in_runtime(RUNTIME + 0x10)


@pytest.mark.usefixtures("caught")
def test_what_fails_costs_an_answer_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    process = ForgedRuntime()
    code = managed_code(process)
    monkeypatch.setattr(Runtime, "last_thrown", fail)
    monkeypatch.setattr(Runtime, "method_at", fail)
    start = compile_method(process, process.types["Shop.Program"].methods["Run"])
    with caplog.at_level(logging.INFO, "throwstack.managed"):
        name = code.name_outside(start + 4)
        assert name is not None
        assert name.reason == "managed method, name not readable: unexpected ZeroDivisionError"
        assert code.last_thrown(4) == (None, "unexpected ZeroDivisionError")
    assert "managed code: unexpected ZeroDivisionError" in caplog.text


def test_the_architecture_is_known_without_the_header_page_of_the_runtime() -> None:
    process = ForgedRuntime(Style.ABSOLUTE, Arch.X86)
    thrown = process.exception("Shop.OrderException", "no stock")
    process.thread(0x10, thrown)
    process.thread(0x14)
    code = managed_code(process)
    assert code.last_thrown(0x10)[0] is not None
    del process.pages[RUNTIME]
    runtime = managed_code(process).runtime
    assert runtime is not None
    assert runtime.pointer_size == 4


def test_a_precompiled_method_is_located_in_its_image_with_its_begin_and_only_there() -> None:
    process = ForgedRuntime()
    process.place(r2r.BASE, r2r.image())
    modules = [*(image.module for image in process.images), Module("early.dll", "", r2r.BASE, len(r2r.image()))]
    images = ImageMap(process.memory, ModuleMap(modules))
    code = ManagedCode(process.memory, images, None, list)
    early = images.find(r2r.BASE)
    assert early is not None
    begin = r2r.function(2)
    found = code.locate(early, begin + 4)
    assert found is not None
    assert found.symbol.startswith("Program.Run(")
    assert (found.rva, found.is_inside) == (begin, True)
    assert code.locate(early, 0x10) is None
    runtime = images.find(RUNTIME)
    assert runtime is not None
    assert code.locate(runtime, 0x1000) is None


def test_precompiled_methods_that_cannot_be_named_are_said_with_the_reason() -> None:
    process = ForgedRuntime()
    process.place(r2r.BASE, r2r.image())
    size = len(r2r.image())
    modules = [*(image.module for image in process.images), Module("early.dll", "", r2r.BASE, size)]
    at = r2r.BASE + r2r.function(2)

    def missing(*addresses: int) -> tuple[str, ...]:
        code = ManagedCode(process.memory, ImageMap(process.memory, ModuleMap(modules)), None, list)
        return code.what_is_missing(4, addresses)

    assert missing(at, RUNTIME + 8) == ()
    del process.pages[r2r.BASE + (r2r.HEADER & -PAGE_SIZE)]
    (said,) = missing(at, at + 4, RUNTIME + 8)
    assert said.startswith("names of methods in early may be missing: the ReadyToRun header of the image at ")
    assert missing(RUNTIME + 8) == ()


def test_work_that_was_ended_by_its_limit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    process = ForgedRuntime()
    start = compile_method(process, process.types["Shop.Program"].methods["Run"])
    monkeypatch.setattr("throwstack.managed.runtime_memory.BUDGETS", replace(BUDGETS, managed=SPENT))
    code = managed_code(process)
    name = code.name_outside(start)
    assert name is not None
    assert name.reason == "managed method, name not readable: the budget of 0 places for a thread is spent"
    (said,) = code.what_is_missing(4, [start])
    assert said == "names of JIT-compiled methods may be missing: the budget of 0 places for a thread is spent"


def test_earlier_exceptions_on_absent_pages_are_said_to_be_missing() -> None:
    process = ForgedRuntime(Style.ABSOLUTE)
    thread = process.thread(0x14, process.exception("Shop.OrderException", "second"))
    process.word(thread + 0x1E0 + 0x10, 0x5F000000)
    process.place(0x5F000000, bytes(0x10))
    del process.pages[0x5F000000]
    code = managed_code(process)
    assert [found.message for found in code.exceptions_in_flight(0x14)] == ["second"]
    (said,) = code.what_is_missing(0x14, [])
    assert said.startswith("earlier exceptions that are still in flight may be missing: ")
    assert said.endswith("where the next one may be, 0x5f000000, is not in the dump")


def test_frames_of_managed_code_come_before_those_of_other_sources() -> None:
    class Given:
        def __init__(self, found: FrameData | None) -> None:
            self.found = found

        def frame_data(self, _image: Image, _rva: int) -> FrameData | None:
            return self.found

    process = ForgedRuntime()
    (image, *_) = process.images
    managed, pdb = Given(FRAME), Given(replace(FRAME, size=2))
    assert FramesOfProcess(managed, pdb).frame_data(image, 0) == FRAME  # type: ignore[arg-type]
    assert FramesOfProcess(Given(None), pdb).frame_data(image, 0) == pdb.found  # type: ignore[arg-type]
    assert FramesOfProcess(managed_code(process), None).frame_data(image, 0) is None


def test_a_precompiled_method_that_an_absent_page_hides_has_a_reason_and_no_symbol() -> None:
    process = ForgedRuntime()
    process.place(r2r.BASE, r2r.image())
    modules = [*(image.module for image in process.images), Module("early.dll", "", r2r.BASE, len(r2r.image()))]
    del process.pages[r2r.BASE]
    images = ImageMap(process.memory, ModuleMap(modules))
    code = ManagedCode(process.memory, images, None, list)
    early = images.find(r2r.BASE)
    assert early is not None
    found = code.locate(early, r2r.function(2) + 4)
    assert found is not None
    assert (found.symbol, found.rva) == ("", None)
    assert found.reason.startswith("no managed method is known here: the headers of the image at ")
    name = Symbols(images, compiled=code).name(r2r.BASE + r2r.function(2) + 4)
    assert (str(name), name.reason) == (f"early+{r2r.function(2) + 4:#x}", found.reason)


def test_code_whose_header_is_absent_says_so_where_the_process_has_memory_there() -> None:
    class Everywhere:
        def find(self, address: int) -> Region | None:
            return Region(CODE, HEADER + PAGE_SIZE, RegionKind.PRIVATE, is_executable=True)

    process = ForgedRuntime()
    start = compile_method(process, process.types["Shop.Program"].methods["Run"])
    del process.pages[HEADER]
    code = ManagedCode(process.memory, process.images, Everywhere(), lambda: process.threads)
    name = code.name_outside(start + 4)
    assert name is not None
    reason = f"no managed method is known here: what may tell of it, at {HEADER:#x}, is not in the dump"
    assert (name.symbol, name.reason) == ("", reason)
