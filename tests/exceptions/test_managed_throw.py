# SPDX-License-Identifier: Apache-2.0
"""Which exception object belongs to a throw: the one that has recorded the frame that threw."""

from __future__ import annotations

import pytest

from tests.support.managed_code import compile_method, managed_code, walk_of
from tests.support.managed_heap import RUNTIME, STACK, ForgedRuntime
from tests.support.managed_layouts import LAYOUTS
from tests.support.pe_writer import X64, Pe, Section
from throwstack.core.contexts import Context
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.frames import StackBounds, Walk
from throwstack.core.memory import PAGE_SIZE, memory_of
from throwstack.core.regions import Region, RegionKind
from throwstack.core.registers import Arch, Registers
from throwstack.dispatch.saved_exception import Route, SavedException
from throwstack.exceptions.managed_throw import ManagedThread, managed_throw
from throwstack.exceptions.model import ManagedThrow
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.managed.process_code import ManagedCode
from throwstack.names.symbols import Symbols

TID = 0x14
NULL, VIOLATION = "System.NullReferenceException", "System.AccessViolationException"
RAISER, NATIVE, CLR_DLL = 0x7B013D7E, 0x7B627E49, 0x18000000
FIRST, SECOND = STACK + 0x900, STACK + 0x400
"""The stack pointers of the frames that threw first and second."""


def exception_of(
    walk: Walk, code: int, hresult: int = 0x80131601, address: int = RAISER, *parameters: int
) -> SavedException:
    """Return the exception that was raised where `walk` begins; `parameters` are those after the HRESULT."""
    registers = Registers.named(Arch.X64, {"rip": RAISER, "rsp": walk.frames[0].sp})
    context = Context(Arch.X64, walk.frames[0].sp - 0x800, 0, registers, *(0,) * 7)
    given = (0xFFFFFFFF00000000 | hresult, *parameters)
    record = ExceptionRecord(code, 1, address, 0, given, 0x100, len(given))
    return SavedException(record, context, (Route.RAISE,), walk.frames[0].sp)


class Scene:
    """A thread: Main calls First, which throws; Main's catch block calls Second, which throws."""

    def __init__(self) -> None:
        self.process = process = ForgedRuntime()
        process.allocate(STACK, 0x2000)
        methods = process.types["Shop.Program"].methods
        self.run = compile_method(process, methods["Run"]) + 0x10
        self.main = compile_method(process, methods["Main"], 1) + 0x10
        self.stub = compile_method(process, process.dynamic_method("IL_STUB_PInvoke"), 2) + 0x10
        self.methods = methods

    def thrown(
        self, message: str, *frames: tuple[int, int], hresult: int = 0x80131601, kind: str = "Shop.OrderException"
    ) -> int:
        stack = self.process.trace(*((ip, sp, self.methods["Run"], 0) for ip, sp in frames))
        return self.process.exception(kind, message, hresult, _stackTrace=stack)

    def of(self, walk: Walk, *, code: int = 0xE0434352, hresult: int = 0x80131601, is_innermost: bool = True):
        exception = exception_of(walk, code, hresult)
        managed = managed_code(self.process)
        symbols = Symbols(self.process.images, name_outside=managed.name_outside)
        thread = ManagedThread(managed, symbols, TID, StackBounds(STACK, STACK + 0x2000))
        return managed_throw(thread, exception, walk, is_innermost=is_innermost)


def message_of(found: ManagedThrow | None) -> str | None:
    assert found is not None
    return None if found.exception is None else found.exception.message


def reason_of(found: ManagedThrow | None) -> str:
    assert found is not None
    assert found.exception is None
    return found.reason


def places(walk: Walk) -> list[tuple[int, int]]:
    return [(frame.ip, frame.sp) for frame in walk.frames]


def test_of_a_throw_in_a_catch_block_each_of_both_exceptions_has_its_own_object() -> None:
    scene = Scene()
    first = scene.thrown("first", (scene.run, FIRST), (scene.main, FIRST + 0x100))
    second = scene.thrown("second", (scene.run, SECOND), (scene.main, FIRST + 0x100))
    scene.process.thread(TID, second)
    scene.process.word(FIRST - 0x40, first)
    outer = [(scene.run, FIRST), (scene.main, FIRST + 0x100), (NATIVE, FIRST + 0x200)]
    inner = walk_of((RAISER, SECOND - 0x100), (scene.run, SECOND), *outer)
    assert message_of(scene.of(inner)) == "second"
    assert message_of(scene.of(walk_of((RAISER, FIRST - 0x100), *outer), is_innermost=False)) == "first"


def test_a_stub_is_recorded_without_ip_so_that_the_frame_outside_it_counts() -> None:
    scene = Scene()
    scene.process.thread(TID, scene.thrown("in native code", (0, SECOND), (scene.run, FIRST)))
    found = scene.of(walk_of((RAISER, SECOND - 0x100), (scene.stub, SECOND + 8), (scene.run, FIRST)))
    assert message_of(found) == "in native code"
    assert found is not None
    assert found.tie == ""


def test_an_object_that_has_recorded_another_stack_is_taken_for_the_innermost_by_its_hresult_and_that_is_said() -> None:
    scene = Scene()
    scene.process.thread(TID, scene.thrown("elsewhere", (scene.run, FIRST + 0x500)))
    walk = walk_of((RAISER, SECOND - 0x100), (scene.run, SECOND))
    found = scene.of(walk)
    assert message_of(found) == "elsewhere"
    assert found is not None
    assert "HRESULT" in found.tie
    assert message_of(scene.of(walk, hresult=0x80131537)) is None
    assert message_of(scene.of(walk, is_innermost=False)) is None


def test_an_object_whose_recorded_stack_is_lost_is_tied_by_its_hresult_alone_as_well() -> None:
    scene = Scene()
    lost = scene.process.exception("Shop.OrderException", "no stack", 0x80131601, _stackTrace=0x44440000)
    scene.process.thread(TID, lost)
    found = scene.of(walk_of((RAISER, SECOND - 0x100), (scene.run, SECOND)))
    assert message_of(found) == "no stack"
    assert found is not None
    assert "HRESULT alone" in found.tie


def test_a_fault_is_managed_only_if_an_object_has_recorded_its_frame() -> None:
    scene = Scene()
    scene.process.thread(TID, scene.thrown("null", (scene.run, SECOND), kind=NULL))
    fault = walk_of((scene.run, SECOND), (scene.main, SECOND + 0x100))
    assert message_of(scene.of(fault, code=0xC0000005)) == "null"
    elsewhere = walk_of((scene.run, FIRST), (scene.main, FIRST + 0x100))
    assert reason_of(scene.of(elsewhere, code=0xC0000005)) == "the thread's last thrown object is of another exception"
    assert scene.of(walk_of((NATIVE, SECOND), (RAISER, FIRST)), code=0xC0000005) is None


def test_why_a_fault_in_managed_code_has_no_object_is_said_and_of_a_fault_in_native_code_it_is_not() -> None:
    scene = Scene()
    thrown = scene.thrown("null", (scene.run, SECOND), kind=NULL)
    scene.process.thread(TID, thrown)
    del scene.process.pages[thrown & -PAGE_SIZE]
    in_managed = walk_of((scene.run, SECOND), (scene.main, SECOND + 0x100))
    assert f"{thrown:#x}" in reason_of(scene.of(in_managed, code=0xC0000005))
    assert scene.of(walk_of((NATIVE, SECOND - 0x100), *places(in_managed)), code=0xC0000005) is None


@pytest.mark.parametrize(
    ("base", "message", "reason"),
    [
        (RUNTIME, "by .NET", ""),
        (CLR_DLL, None, "another runtime of the process raised it, clr.dll, of which nothing is read"),
        (0x123450000, "by .NET", ""),
    ],
)
def test_an_exception_of_another_runtime_in_the_process_has_no_object_of_this_one(
    base: int, message: str | None, reason: str
) -> None:
    """The last parameter is the base of the runtime that raised it: of coreclr.dll, of clr.dll, of no image."""
    scene = Scene()
    scene.process.thread(TID, scene.thrown("by .NET", (scene.run, SECOND)))
    walk = walk_of((RAISER, SECOND - 0x100), (scene.run, SECOND))
    modules = [*(image.module for image in scene.process.images), Module("clr.dll", "", CLR_DLL, 0x1000)]
    images = ImageMap(scene.process.memory, ModuleMap(modules))
    code = ManagedCode(scene.process.memory, images, None, lambda: scene.process.threads)
    thread = ManagedThread(
        code, Symbols(images, name_outside=code.name_outside), TID, StackBounds(STACK, STACK + 0x2000)
    )
    found = managed_throw(
        thread, exception_of(walk, 0xE0434352, 0x80131601, RAISER, 0, 0, 0, base), walk, is_innermost=True
    )
    assert found is not None
    assert (message_of(found), found.reason) == (message, reason)


class Executable:
    """Regions of a process: all of it can be run."""

    def find(self, address: int) -> Region:
        return Region(address, address + 1, RegionKind.PRIVATE, is_executable=True)


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_runtime_in_an_exe_whose_headers_are_absent_is_missed_and_that_is_the_reason(is_lost: bool) -> None:
    """shop.exe has the runtime in it. What the JIT compiler made is outside all images."""
    exe, jit, sp = 0x140000000, 0x7FF000000010, STACK + 0x100
    memory = memory_of({} if is_lost else {exe: Pe(X64, exe, sections=[Section(".text", 0x1000, b"\xc3")]).mapped()})
    images = ImageMap(memory, ModuleMap([Module("shop.exe", "", exe, 0x2000)]))
    code = ManagedCode(memory, images, Executable(), list)
    thread = ManagedThread(code, Symbols(images), TID, StackBounds(STACK, STACK + 0x2000))
    in_exe, in_jit = walk_of((exe + 0x1010, sp)), walk_of((exe + 0x1010, sp), (jit, sp + 0x40))
    found = [
        managed_throw(thread, exception_of(walk, number, address=exe + 0x1010), walk, is_innermost=True)
        for walk, number in ((in_jit, 0xC0000005), (in_exe, 0xC0000005), (in_exe, 0x80131623), (in_exe, 0xE0434352))
    ]
    why = (
        "a runtime that is linked into shop.exe cannot be found, because page 0x140000000, with its headers, is absent"
    )
    none = "no image of the process is a .NET runtime"
    expected = [why, None, why, why] if is_lost else [None, None, None, none]
    assert [each and each.reason for each in found] == expected


def test_an_object_that_passed_the_frame_on_its_way_out_is_not_that_of_a_throw_with_another_hresult() -> None:
    """A catch block throws. The frame that threw first has lost its name, so that Main's is the innermost known one."""
    scene = Scene()
    scene.process.thread(TID, scene.thrown("second", (scene.run, SECOND), (scene.main, FIRST + 0x100)))
    outer = walk_of((RAISER, FIRST - 0x100), (NATIVE, FIRST), (scene.main, FIRST + 0x100))
    assert message_of(scene.of(outer, is_innermost=False)) == "second"
    assert message_of(scene.of(outer, hresult=0x80131505, is_innermost=False)) is None


def test_a_frame_whose_name_is_lost_ties_an_object_that_has_recorded_it_and_no_other_one() -> None:
    scene = Scene()
    lost = compile_method(scene.process, 0x1234560, 3) + 0x10
    scene.process.thread(TID, scene.thrown("second", (scene.run, SECOND), (scene.main, FIRST + 0x100)))
    outer = walk_of((RAISER, FIRST - 0x100), (lost, FIRST), (scene.main, FIRST + 0x100))
    found = scene.of(outer, is_innermost=False)
    assert found is not None
    assert (found.exception, found.reason[:36]) == (None, "managed frames of this stack have no")
    scene.process.word(FIRST - 0x40, scene.thrown("first", (lost, FIRST), (scene.main, FIRST + 0x100)))
    assert message_of(scene.of(outer, is_innermost=False)) == "first"


def test_that_the_object_of_a_fault_cannot_be_read_is_a_reason_and_so_is_a_stack_without_names() -> None:
    scene = Scene()
    thread = scene.process.thread(TID, scene.thrown("null", (scene.run, SECOND), kind=NULL))
    fault = walk_of((scene.run, SECOND), (scene.main, SECOND + 0x100))
    scene.process.word(thread + LAYOUTS[8]["thrown"], 0x6F000000)
    found = scene.of(fault, code=0xC0000005)
    assert found is not None
    assert (found.exception, found.reason[:10]) == (None, "the handle")
    lost = compile_method(scene.process, 0x1234560, 3) + 0x10
    found = scene.of(walk_of((lost, SECOND)), code=0xC0000005)
    assert found is not None
    assert (found.exception, found.reason) == (None, "the managed frames of this stack have no names")


def test_without_an_object_the_reason_is_given() -> None:
    scene = Scene()
    scene.process.thread(TID)
    found = scene.of(walk_of((RAISER, SECOND - 0x100), (scene.run, SECOND)))
    assert message_of(found) is None
    assert found is not None
    assert found.reason


def test_an_object_that_a_local_variable_keeps_is_not_that_of_a_fault_at_the_same_call() -> None:
    """A loop calls native code. In its first round a callback threw, which was caught. In the second it faults."""
    scene = Scene()
    scene.process.thread(TID)
    native = walk_of((NATIVE, SECOND - 0x100), (scene.run, SECOND))
    scene.process.word(SECOND + 0x40, scene.thrown("first round", (scene.run, SECOND), kind=NULL))
    assert scene.of(native, code=0xC0000005) is None
    scene.process.word(SECOND + 0x40, scene.thrown("first round", (scene.run, SECOND)))
    found = scene.of(walk_of((scene.run, SECOND)), code=0xC0000005)
    assert (message_of(found), reason_of(found)) == (None, "the runtime keeps no exception of this thread")


def test_a_fault_of_native_code_has_no_more_than_what_managed_code_sees() -> None:
    scene = Scene()
    native = walk_of((NATIVE, SECOND - 0x100), (scene.run, SECOND))
    scene.process.thread(TID, scene.process.exception(VIOLATION, "protected"))
    found = scene.of(native, code=0xC0000005)
    assert message_of(found) == "protected"
    assert found is not None
    assert not found.is_cause
    assert scene.of(native, code=0xC0000094) is None
    assert scene.of(native, code=0xC0000005, is_innermost=False) is None


def test_of_two_objects_on_the_stack_that_fit_the_nearest_is_taken_for_an_outer_exception_and_that_is_said() -> None:
    """A retry loop keeps what it has caught. What was raised last is the runtime's own last thrown one, or unknown."""
    scene = Scene()
    scene.process.thread(TID)
    for place, text in ((0x80, "first round"), (0x40, "second round")):
        scene.process.word(SECOND + place, scene.thrown(text, (scene.run, SECOND)))
    scene.process.word(SECOND + 0x20, scene.thrown("another", (scene.run, SECOND), hresult=0x80131537))
    walk = walk_of((RAISER, SECOND - 0x100), (scene.run, SECOND))
    assert message_of(scene.of(walk)) is None
    found = scene.of(walk, is_innermost=False)
    assert message_of(found) == "second round"
    assert found is not None
    assert "several objects" in found.tie


def test_environment_failfast_was_given_a_message_and_an_exception_which_are_on_the_stack() -> None:
    scene = Scene()
    process, walk = scene.process, walk_of((RAISER, SECOND), (scene.run, FIRST))
    text, why = process.string("the shop is on fire"), process.exception("Shop.OrderException", "why")
    process.thread(TID, process.exception("Shop.OrderException", "handled long ago"))
    process.word(SECOND + 0x20, process.string("another string, and what is after it is no object"))
    process.word(SECOND + 0x28, 0x1234)
    process.word(SECOND + 0x40, text)
    process.word(SECOND + 0x48, why)
    found = scene.of(walk, code=0x80131623)
    assert found is not None
    assert found.exception is None
    assert found.given is not None
    assert found.given.message == "the shop is on fire"
    assert found.given.exception is not None
    assert found.given.exception.message == "why"
    process.word(SECOND + 0x48, 0)
    alone = scene.of(walk, code=0x80131623)
    assert alone is not None
    assert alone.given is not None
    assert (alone.given.message, alone.given.exception) == ("the shop is on fire", None)


def test_on_net_9_and_later_environment_failfast_s_own_frames_have_what_it_was_given() -> None:
    """The runtime's own function is managed code: the string and the exception are among the arguments of FailFast.

    What is further out is the program's: a string and an exception there were not given to FailFast.
    """
    scene = Scene()
    process = scene.process
    own = compile_method(process, process.types["System.Environment"].methods["FailFast"], 3) + 0x10
    process.thread(TID)
    text, why = process.string("the shop is on fire"), process.exception("Shop.OrderException", "why")
    walk = walk_of((RAISER, SECOND), (scene.stub, SECOND + 0x80), (own, SECOND + 0x100), (scene.run, SECOND + 0x200))
    for place, found in ((SECOND + 0x240, None), (SECOND + 0x140, "the shop is on fire")):
        process.word(place, text)
        process.word(place + 8, why)
        thrown = scene.of(walk, code=0x80131623)
        assert thrown is not None
        assert (thrown.given and thrown.given.message) == found


@pytest.mark.parametrize("lost", ["own", "caller", "all", "rest of the walk"])
def test_where_names_are_lost_no_string_of_the_program_is_taken_for_what_failfast_was_given(lost: str) -> None:
    """FailFast(null): a method of the program has a string beside a null in its frame; pages of code are lost."""
    scene = Scene()
    process = scene.process
    own = compile_method(process, process.types["System.Environment"].methods["FailFast"], 3) + 0x10
    process.thread(TID)
    process.word(SECOND + 0x240, process.string("the secret"))
    frames = [(RAISER, SECOND), (RUNTIME + 0x10, SECOND + 0x40), (own, SECOND + 0x100), (scene.run, SECOND + 0x200)]
    for place in {"own": [own], "caller": [scene.run], "all": [own, scene.run, scene.main]}.get(lost, []):
        del process.pages[place & -PAGE_SIZE]
    walk = walk_of(*frames[:2]) if lost == "rest of the walk" else walk_of(*frames, (scene.main, SECOND + 0x300))
    found = scene.of(walk, code=0x80131623)
    assert found is not None
    assert found.given is None
