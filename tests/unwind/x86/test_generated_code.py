# SPDX-License-Identifier: Apache-2.0
"""Frames of code that was generated at run time, between frames of images."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.unwind.x86.assemble import EAX, EBP, EBX, ESI, ESP, LEAVE, Assembler, mov, mov_value, pop, push, ret, sub
from tests.unwind.x86.machine import TEXT
from tests.unwind.x86.written_stack import STACK, Stack, slots, walk
from throwstack.core.frames import End, Trust
from throwstack.core.regions import Region, RegionKind

PRIVATE, FREED = 0x5000000, 0x6B000040


def program() -> Assembler:
    """start calls outer, outer calls generated code, and that calls inner."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("cc").align()
    asm.label("outer").emit(push(EBP), mov(EBP, ESP), push(ESI), "ffd0").label("back in outer")
    asm.emit(pop(ESI), LEAVE, ret()).align()
    asm.label("inner").emit(push(EBP), mov(EBP, ESP), push(EBX)).label("in inner").emit("8bc1", pop(EBX), LEAVE, ret())
    return asm.align()


def generated(asm: Assembler, locals_size: int) -> Assembler:
    """A function with a frame pointer that calls itself or inner."""
    made = Assembler(PRIVATE).emit(push(EBP), mov(EBP, ESP), sub(ESP, locals_size))
    made.emit(mov_value(EAX, asm.labels["inner"]), "ffd0").label("back").emit(LEAVE, ret())
    return made


def chain(asm: Assembler, back: int, count: int, locals_size: int) -> Stack:
    """The stack in inner, with `count` generated frames below outer's."""
    base, words, saved = STACK.limit + 0x20, [0xB], []
    for address in [back] * count + [asm.labels["back in outer"]]:
        saved.append(len(words))
        words += [0, address, *[0] * (locals_size // 4 if address == back else 0)]
    words.append(0x51)
    saved.append(len(words))
    words += [0, asm.labels["back in start"], 0]
    for index, following in pairwise(saved):
        words[index] = base + 4 * following
    stack = Stack(*words, base=base)
    stack.marks["ebp"] = base + 4 * saved[0]
    return stack


def walk_through(count: int, locals_size: int, *, has_symbols: bool, cut: int = 0):
    asm = program()
    made = generated(asm, locals_size)
    stack = chain(asm, made.labels["back"], count, locals_size)
    registers = {"eip": asm.labels["in inner"], "esp": stack.base, "ebp": stack["ebp"], "esi": 5, "ebx": 0xB}
    code = made.finish()[: len(made.finish()) - cut].ljust(0x1000, b"\xcc")
    found = walk(asm, stack, registers, has_symbols=has_symbols, segments={PRIVATE: code})
    names = [asm.labels["in inner"], *[made.labels["back"]] * count, asm.labels["back in outer"]]
    return found, [*names, asm.labels["back in start"]]


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
@pytest.mark.parametrize("cut", [0, 2], ids=["whole", "no return"])
@pytest.mark.parametrize(("count", "locals_size"), [(1, 0x40), (5, 0x40), (12, 0x100)])
def test_a_chain_of_frame_pointers_leads_through_generated_frames(count, locals_size, cut, has_symbols):
    found, expected = walk_through(count, locals_size, cut=cut, has_symbols=has_symbols)
    assert [frame.ip for frame in found.frames] == expected
    assert [frame.trust for frame in found.frames[1:-1]] == [Trust.FRAME_POINTER] * (count + 1)
    assert found.is_complete


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
def test_generated_code_without_a_frame_pointer_is_followed_to_its_return(has_symbols):
    """ebp is outer's all along. The chain would leave out outer."""
    asm = program()
    made = Assembler(PRIVATE).emit(sub(ESP, 8), push(EBX), "ffd0").label("back").emit(pop(EBX), "83c408", ret())
    stack = Stack(
        *("esp", 0xC, "inner's ebp", 0, made.labels["back"], 0xB, 0, 0, "made returns", asm.labels["back in outer"]),
        *(0x51, "outer's ebp", 0, "outer returns", asm.labels["back in start"], 0),
    )
    stack.words[1] = stack["outer's ebp"]
    registers = {"eip": asm.labels["in inner"], "esp": stack["esp"], "ebp": stack["inner's ebp"]}
    code = made.finish().ljust(0x1000, b"\xcc")
    found = walk(asm, stack, registers, has_symbols=has_symbols, segments={PRIVATE: code})
    assert slots(found)[1:3] == [stack["made returns"], stack["outer returns"]]
    assert found.frames[2].trust is Trust.PROLOGUE
    assert (found.frames[2].registers.gpr[EBX], found.frames[3].registers.gpr[EBX]) == (0xB, 0xB)


@pytest.mark.parametrize("broken", ["", "unaligned", "downwards", "not a call"])
def test_a_frame_pointer_whose_chain_does_not_go_on_is_no_more_than_a_guess(broken):
    asm = program()
    made = generated(asm, 0x10)
    stack = chain(asm, made.labels["back"], 1, 0x10)
    index = 1 + 2 + 4  # the saved ebp of outer, in the generated function's frame
    stack.words[index] = {
        "": stack.words[index],
        "unaligned": stack.words[index] + 2,
        "downwards": stack.base,
        "not a call": stack.base + 4 * (index + 1),
    }[broken]
    registers = {"eip": made.labels["back"], "esp": stack.base + 12, "ebp": stack.base + 4 * index}
    code = made.finish()[:-2].ljust(0x1000, b"\xcc")
    found = walk(asm, stack, registers, has_symbols=True, segments={PRIVATE: code})
    assert found.frames[1].ip == asm.labels["back in outer"]
    assert found.frames[1].trust is (Trust.SCAN if broken else Trust.FRAME_POINTER)


class Generated:
    """The regions of a process: code can be run in the private memory, and nothing else is known."""

    def find(self, address: int) -> Region | None:
        is_private = PRIVATE <= address < PRIVATE + 0x1000
        return Region(PRIVATE, PRIVATE + 0x1000, RegionKind.PRIVATE, is_executable=True) if is_private else None


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
def test_generated_code_may_have_called_what_was_freed_since(has_symbols):
    """`call rel32` from one generated function to another, which the JIT compiler has thrown away meanwhile."""
    asm = program()
    made = Assembler(PRIVATE).emit(push(EBP), mov(EBP, ESP), sub(ESP, 8)).call("freed").label("back").emit(LEAVE, ret())
    made.labels["freed"] = FREED
    stack = Stack(
        *("esp", made.labels["back"], 7, 7, "ebp", 0, asm.labels["back in outer"], 0x51, "outer's", 0),
        *(asm.labels["back in start"], 0),
    )
    stack.words[3] = stack["outer's"]
    registers = {"eip": FREED, "esp": stack["esp"], "ebp": stack["ebp"]}
    segments = {PRIVATE: made.finish().ljust(0x1000, b"\xcc")}
    found = walk(asm, stack, registers, has_symbols=has_symbols, segments=segments, regions=Generated())
    returns = [made.labels["back"], asm.labels["back in outer"], asm.labels["back in start"]]
    assert [frame.ip for frame in found.frames[1:]] == returns
    assert (found.frames[1].trust, found.frames[1].note) == (Trust.SCAN, "the thread is not in code")
    assert found.is_complete


def test_a_word_that_points_into_data_is_no_return_address():
    """Two rules agree on a slot that holds a pointer to the heap."""
    asm = program()
    stack = Stack("esp", 0xB, "ebp", 0, PRIVATE + 0x20, "later", asm.labels["back in outer"], 0)
    registers = {"eip": asm.labels["in inner"], "esp": stack["esp"], "ebp": stack["ebp"]}
    found = walk(asm, stack, registers, segments={PRIVATE: bytes(0x1000)})
    assert PRIVATE + 0x20 not in [frame.ip for frame in found.frames]


def test_a_call_of_data_returns_to_the_word_on_top_of_the_stack():
    """`call eax` with eax pointing to the heap, whose bytes can be read as code that returns elsewhere."""
    asm = program()
    data = b"\x83\xc4\x08\xc3".ljust(0x1000, b"\0")  # add esp, 8; ret
    stack = Stack("esp", asm.labels["back in outer"], 0x51, "ebp", 0, "returns", asm.labels["back in start"], 0)
    registers = {"eip": PRIVATE, "eax": PRIVATE, "esp": stack["esp"], "ebp": stack["ebp"]}
    found = walk(asm, stack, registers, segments={PRIVATE: data})
    assert slots(found)[:2] == [stack["esp"], stack["returns"]]
    assert found.is_complete


def test_generated_code_is_never_where_a_thread_started():
    asm = program()
    made = generated(asm, 8)
    stack = Stack("esp", 0, 0, "ebp", 0, "returns", 0, base=STACK.base - 0x40)
    registers = {"eip": made.labels["back"], "esp": stack["esp"], "ebp": stack["ebp"]}
    found = walk(asm, stack, registers, has_symbols=False, segments={PRIVATE: made.finish().ljust(0x1000, b"\xcc")})
    assert found.end is not End.THREAD_START
