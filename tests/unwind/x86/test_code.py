# SPDX-License-Identifier: Apache-2.0
"""Pointers to code, targets of calls and jumps, and which addresses begin functions."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import Assembler, ret
from tests.unwind.x86.machine import DATA, TEXT, code_of, words
from throwstack.unwind.x86.code import WorkLimitError


def program() -> Assembler:
    asm = Assembler(TEXT)
    asm.label("caller").call("thunk").label("import").emit("ff15", DATA.to_bytes(4, "little"))
    asm.label("wild").emit("e800000010").label("by register").emit("ffd0", ret()).align()
    asm.label("thunk").jump("second thunk").align()
    asm.label("second thunk").jump("function").align()
    asm.label("function").emit(ret()).align()
    asm.label("switch").emit("ff2485", (DATA + 8).to_bytes(4, "little"))
    return asm


def test_calls_lead_to_functions_directly_and_through_imports() -> None:
    asm = program()
    code = code_of(asm, segments={DATA: words(asm.labels["function"])})
    targets = {name: code.target(code.at(asm.labels[name])) for name in ("caller", "import", "wild", "by register")}
    assert targets == {
        "caller": asm.labels["thunk"],
        "import": asm.labels["function"],
        "wild": None,  # not in code
        "by register": None,
    }


def test_jumps_that_are_alone_are_followed_to_the_function() -> None:
    asm = program()
    code = code_of(asm)
    assert code.after_thunks(asm.labels["thunk"]) == asm.labels["function"]
    assert code.after_thunks(asm.labels["function"]) == asm.labels["function"]


def test_a_jump_table_ends_at_the_first_word_that_is_no_code() -> None:
    asm = program()
    cases = asm.labels["function"], asm.labels["caller"]
    code = code_of(asm, segments={DATA: words(0, 0, *cases, 7, *cases)})
    assert code.table(code.at(asm.labels["switch"])) == list(cases)
    assert code.table(code.at(asm.labels["caller"])) == []


def test_only_full_symbols_say_where_the_function_of_an_address_starts() -> None:
    asm = program()
    with_symbols, without = code_of(asm, functions=("caller", "function")), code_of(asm)
    inside = asm.labels["by register"]
    assert with_symbols.function_start(inside, is_return_address=False) == asm.labels["caller"]
    assert without.function_start(inside, is_return_address=False) is None
    assert with_symbols.is_function_start(asm.labels["function"])
    assert not with_symbols.is_function_start(asm.labels["thunk"])


def test_data_is_no_code() -> None:
    code = code_of(program(), segments={DATA: b"\xc3"})
    assert code.is_code(TEXT)
    assert not code.is_code(DATA)
    assert code.at(DATA) is None


def test_a_walk_may_follow_so_many_instructions() -> None:
    code = code_of(program())
    code.begin_walk(2)
    code.work()
    code.work()
    with pytest.raises(WorkLimitError):
        code.work()
    code.begin_walk(1)
    code.work()
    assert code.work_done == 1
