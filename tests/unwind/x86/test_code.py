# SPDX-License-Identifier: Apache-2.0
"""Pointers to code, targets of calls and jumps, and which addresses begin functions."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import Assembler, ret
from tests.unwind.x86.machine import BASE, DATA, TEXT, code_of, header_page, images_of, symbols_of, words
from throwstack.core.memory import SegmentSource
from throwstack.core.regions import Region, RegionKind
from throwstack.images.image import Image
from throwstack.names.located_function import LocatedFunction
from throwstack.names.symbols import Symbols
from throwstack.unwind.code_outside import CodeOutside
from throwstack.unwind.x86.code import Code, WorkLimitError


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


def test_a_precompiled_method_of_net_tells_its_start_where_there_are_no_symbols() -> None:
    asm = program()
    code, start = code_of(asm), asm.labels["caller"]

    class Compiled:
        def locate(self, image: Image, rva: int) -> LocatedFunction | None:
            is_inside = start <= image.base + rva <= asm.labels["by register"]
            return LocatedFunction("Shop.Run()", start - image.base) if is_inside else None

    code.symbols = Symbols(code.images, compiled=Compiled())
    inside = asm.labels["by register"]
    assert code.function_start(inside, is_return_address=False) == start
    assert code.function_start(inside + 1, is_return_address=True) == start
    assert code.function_start(inside + 1, is_return_address=False) is None


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


@pytest.mark.parametrize(
    "code",
    [
        "ffe0",  # jmp eax
        "ff25" + (DATA + 8).to_bytes(4, "little").hex(),  # jmp [table]
        "ff24c5" + (DATA + 8).to_bytes(4, "little").hex(),  # jmp [eax*8+table]
        "ffa483" + (DATA + 8).to_bytes(4, "little").hex(),  # jmp [ebx+eax*4+table]
    ],
)
def test_only_a_jump_by_an_index_of_words_has_a_table(code):
    found = code_of(Assembler(TEXT).emit(code), segments={DATA: words(0, 0, TEXT, TEXT)})
    assert found.table(found.at(TEXT)) == []


def test_a_jump_table_stays_in_its_image_and_has_at_most_512_targets():
    asm, elsewhere = program(), 0x12FF00
    leaving = code_of(asm, segments={DATA: words(0, 0, TEXT, elsewhere, TEXT + 5), elsewhere: bytes(64)})
    assert leaving.is_code(elsewhere)
    assert leaving.table(leaving.at(asm.labels["switch"])) == [TEXT]
    long = code_of(asm, segments={DATA: words(0, 0, *range(TEXT, TEXT + 600))})
    assert long.table(long.at(asm.labels["switch"])) == list(range(TEXT, TEXT + 512))


def test_four_jumps_in_a_row_are_followed():
    asm = Assembler(TEXT)
    for number in range(6):
        asm.label(str(number)).jump(str(number + 1)).align()
    asm.label("6").emit("ffe0").align()
    code = code_of(asm)
    assert code.after_thunks(asm.labels["0"]) == asm.labels["4"]
    assert code.after_thunks(asm.labels["3"]) == asm.labels["6"]  # jmp eax leads nowhere that is known
    assert code.after_thunks(DATA) == DATA


def test_outside_the_images_no_function_starts():
    code = code_of(program(), functions=("caller",), segments={0x12FF00: bytes(64)})
    assert code.function_start(0x12FF00, is_return_address=False) is None
    assert code.is_outside(0x12FF00)
    assert not code.is_outside(TEXT)
    assert code.work_done == 0


OUTSIDE = 0x5000000


class Everywhere:
    """A process whose memory outside its images is executable."""

    def find(self, address: int) -> Region:
        return Region(OUTSIDE, OUTSIDE + 0x2000, RegionKind.PRIVATE, is_executable=True)


@pytest.mark.parametrize("is_recorded", [True, False])
def test_outside_the_images_code_is_certain_where_the_process_has_it(is_recorded):
    images = images_of(SegmentSource({BASE: header_page(), TEXT: bytes(16), OUTSIDE: bytes(16)}))
    regions = Everywhere() if is_recorded else None
    code = Code(images, symbols_of(images, None), CodeOutside(images, regions))
    assert code.is_code(OUTSIDE)
    assert code.is_certainly_code(OUTSIDE) == is_recorded
    assert not code.is_certainly_code(OUTSIDE + 0x1000)  # a page that is not there
    assert code.is_certainly_code(TEXT)
    assert not Code(images, symbols_of(images, None)).is_certainly_code(OUTSIDE)


def test_a_pointer_to_data_is_no_pointer_to_code():
    code = code_of(program(), segments={DATA: words(DATA, TEXT)})
    assert (code.pointer(DATA), code.pointer(DATA + 4), code.pointer(0x7000000)) == (None, TEXT, None)
