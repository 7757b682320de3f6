# SPDX-License-Identifier: Apache-2.0
"""What a dump's runtime was like, told without the data of the dump."""

from __future__ import annotations

import pytest

from tests.support.managed_code import compile_method, managed_code
from tests.support.managed_heap import APP, RUNTIME, STACK, ForgedRuntime, Style
from throwstack.core.memory import PAGE_SIZE, memory_of
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.managed.managed_exception import ManagedException
from throwstack.managed.process_code import ManagedCode
from throwstack.managed.structure_summary import (
    StructureSummary,
    names_of,
    structure_summary,
    why_overlooked,
    without_data,
)


def summary_of(process: ForgedRuntime, *tids: int) -> StructureSummary:
    """Return the summary of a process."""
    found = structure_summary(managed_code(process), tids)
    assert found is not None
    return found


@pytest.mark.parametrize("style", list(Style))
def test_code_and_stack_that_lead_to_what_an_exception_has_recorded_prove_it(style: Style) -> None:
    """Of four recorded frames, two have JIT code, one is in an image that has none, and one is of a P/Invoke."""
    process = ForgedRuntime(style)
    methods = process.types["Shop.Program"].methods
    run, main = (compile_method(process, methods[name], number) + 0x20 for number, name in enumerate(("Run", "Main")))
    stack = process.trace(
        (0, STACK + 0x100, methods["Run"], 0),
        (run, STACK + 0x200, methods["Run"], 0),
        (main, STACK + 0x300, methods["Run"], 0),
        (APP, STACK + 0x400, methods["Main"], 0),
    )
    process.thread(0x14, process.exception("Shop.OrderException", "secret", _stackTrace=stack), "worker")
    process.thread(0x18)
    process.word(STACK + 0x1F8, run)
    process.word(STACK + 0x2F8, run)
    summary = summary_of(process, 0x14, 0x18)
    assert summary.counts == {
        "threads": 2,
        "threads with an exception": 1,
        "exceptions": 1,
        "exceptions with a class": 1,
        "exceptions with a message": 1,
        "recorded frames": 4,
        "recorded frames with a name": 4,
        "recorded frames with parameters": 4,
        "recorded frames in JIT code": 2,
        "of which the code leads to the recorded method": 1,
        "recorded frames in images": 1,
        "of which the image leads to the recorded method's name": 0,
        "recorded frames whose return address is below their stack pointer": 1,
    }
    assert summary.reasons == {"the runtime keeps no exception of this thread": 1}
    assert "id and TEB in a Thread: at 0x1b8 and 0x98; 2 of 2 Threads were found" in summary.facts
    assert summary.file.name == style.runtime


def test_a_map_has_what_kind_of_word_is_where_and_not_its_value() -> None:
    """Thread: TEB at 0x98, id at 0x1b8, handles of its own object at 0x1c0 and of the last thrown one at 0x1e0."""
    process = ForgedRuntime(Style.ABSOLUTE)
    thread = process.thread(0x14, process.exception("Shop.OrderException", "secret"))
    for at, value in ((0x10, RUNTIME + 4), (0x18, APP), (0x20, 7), (0x28, 0x123456789ABC), (0x30, thread)):
        process.word(thread + at, value)
    maps = {each.structure: each.letters for each in summary_of(process, 0x14).maps}
    assert list(maps) == ["Thread", "exception", "MethodTable", "EEClass"]
    words = dict(enumerate(maps["Thread"]))
    expected = {0: ".", 2: "R", 3: "I", 4: "#", 5: "x", 6: "p", 0x98 // 8: "T"}
    expected |= {0x1B8 // 8: "i", 0x1C0 // 8: "h", 0x1E0 // 8: "h"}
    assert {at: words[at] for at in expected} == expected
    assert maps["exception"][:3] == "M.O"
    assert (maps["MethodTable"][2], maps["EEClass"][2]) == ("M", "M")


def test_where_no_thread_of_the_runtime_is_found_the_places_that_may_lead_to_it_are_shown() -> None:
    process = ForgedRuntime(Style.FRAMEWORK_4)
    thread = process.thread(0x14)
    process.word(thread + 0x98, 0)
    maps = {each.structure: each.letters for each in summary_of(process, 0x14).maps}
    assert maps["TlsSlots"] == "." * 9 + "p" + "." * 54


def test_a_reason_is_told_without_names_and_numbers() -> None:
    process = ForgedRuntime(Style.ABSOLUTE)
    cause = process.exception("Shop.OrderException", "cause")
    order = process.exception("Shop.ComposedException", "secret", _innerException=cause)
    process.thread(0x14, order)
    process.word(order + process.types["Shop.ComposedException"].fields["_innerException"], 0x12340)
    summary = summary_of(process, 0x14)
    assert summary.reasons == {
        "there is no exception object at # where the inner one should be": 1,
        "… composes its message when it is asked for it: this is what it stores": 1,
    }
    text = "\n".join(summary.lines())
    assert "1 times: there is no exception object at # where the inner one should be" in text
    for private in ("Shop", "secret", "12340"):
        assert private not in text


def test_names_that_look_like_words_of_a_reason_are_not_told() -> None:
    """F# allows spaces in names: the class is `secret plan`1[Int32]`, the EXE `my diary.exe`."""
    process = ForgedRuntime(Style.ABSOLUTE)
    exception = ManagedException(
        r"secret plan`1[Int32]",
        (r"a \[hidden\] base", "System.Exception"),
        None,
        None,
        0,
        0,
        reasons=(
            "secret plan`1 composes its message when it is asked for it",
            r"a \[hidden\] base composes its message when it is asked for it",
            "message not readable: the fields of System.Exception are not known",
        ),
    )
    told = [without_data(reason, names_of(exception)) for reason in exception.reasons]
    assert told == [*["… composes its message when it is asked for it"] * 2, exception.reasons[2]]
    module = Module("my diary.exe", "", APP + 0x100000, PAGE_SIZE)
    memory = process.memory
    code = ManagedCode(memory, ImageMap(memory, ModuleMap([module])), None, list)
    assert why_overlooked(code) == (
        "a runtime that is linked into … cannot be found, because page # with its headers, is absent"
    )


def test_a_process_without_a_runtime_has_no_summary() -> None:
    memory = memory_of({})
    assert structure_summary(ManagedCode(memory, ImageMap(memory, ModuleMap([])), None, list), [4]) is None
