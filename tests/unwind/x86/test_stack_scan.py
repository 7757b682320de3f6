# SPDX-License-Identifier: Apache-2.0
"""Words of the stack that can be return addresses."""

from __future__ import annotations

from tests.unwind.x86.assemble import Assembler, ret
from tests.unwind.x86.machine import DATA, TEXT, code_of, words
from throwstack.core.frames import StackBounds
from throwstack.core.memory import PAGE_SIZE
from throwstack.unwind.x86.callees import Callees
from throwstack.unwind.x86.function_starts import FunctionStarts
from throwstack.unwind.x86.prologue import Prologues
from throwstack.unwind.x86.return_address import ReturnAddresses
from throwstack.unwind.x86.stack_scan import scan_return_addresses

LOW = 0x120000
BOUNDS = StackBounds(LOW, LOW + 2 * PAGE_SIZE)


def scanned(asm: Assembler, stack: bytes, start: int = LOW, bounds: StackBounds = BOUNDS) -> list[int]:
    code = code_of(asm, segments={LOW: stack})
    checks = ReturnAddresses(code, Prologues(code, Callees(code)), FunctionStarts(code))
    return [slot for slot, _ in scan_return_addresses(code.memory, checks, start, bounds)]


def program() -> Assembler:
    return Assembler(TEXT).label("start").call("callee").label("after call").label("callee").emit(ret())


def test_only_words_after_a_call_are_found_lowest_first() -> None:
    asm = program()
    after = asm.labels["after call"]
    assert scanned(asm, words(0, after, TEXT, DATA, after)) == [LOW + 4, LOW + 16]


def test_slots_are_aligned_and_within_the_stack() -> None:
    asm = program()
    stack = words(*[asm.labels["after call"]] * 4)
    assert scanned(asm, stack, start=LOW + 5) == [LOW + 8, LOW + 12]
    assert scanned(asm, stack, bounds=StackBounds(LOW, LOW + 8)) == [LOW, LOW + 4]


def test_the_search_ends_after_512_words() -> None:
    asm = program()
    after = asm.labels["after call"]
    assert scanned(asm, words(*[0] * 511, after)) == [LOW + 4 * 511]
    assert scanned(asm, words(*[0] * 512, after)) == []


def test_the_search_ends_at_a_page_that_is_not_there() -> None:
    asm = program()
    found = scanned(asm, words(*[asm.labels["after call"]] * 1024), start=LOW + PAGE_SIZE - 8)
    assert found == [LOW + PAGE_SIZE - 8, LOW + PAGE_SIZE - 4]
