# SPDX-License-Identifier: Apache-2.0
"""Code outside images that keeps ebp, as its source says: the caller is where ebp leads, whatever the code is."""

from __future__ import annotations

from itertools import pairwise

from tests.unwind.x86.assemble import EBP, EBX, ESP, LEAVE, Assembler, mov, pop, push, ret
from tests.unwind.x86.machine import TEXT
from tests.unwind.x86.written_stack import STACK, Stack, walk
from throwstack.core.frames import Trust, Walk
from throwstack.unwind.code_outside import OutsideFunction

JIT = 0x5000000
OPAQUE = bytes.fromhex("0f0b") * 8
"""Code that cannot be followed to a return."""


class Managed:
    """A source that knows the method at JIT."""

    def __init__(self, *, has_frame_pointer: bool = True, name: str = "Shop.Run") -> None:
        self.known = OutsideFunction("not readable", name, has_frame_pointer=has_frame_pointer)

    def function_at(self, address: int) -> OutsideFunction | None:
        return self.known if JIT <= address < JIT + 0x100 else None


def program() -> Assembler:
    """start calls outer, outer calls the method through a stub, and the method calls inner through a stub."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("cc").align()
    asm.label("outer").emit(push(EBP), mov(EBP, ESP), "ffd0").label("back in outer").emit(LEAVE, ret()).align()
    asm.label("inner").emit(push(EBP), mov(EBP, ESP), push(EBX)).label("in inner").emit("8bc1", pop(EBX), LEAVE, ret())
    return asm.align()


def through_method(source: Managed, *, at_entry: bool = False) -> tuple[Walk, list[int]]:
    """Walk from inner, or from the method's second instruction, to start. Return the walk, and the frames' ips."""
    asm = program()
    code = bytes.fromhex("558bec") + OPAQUE + bytes.fromhex("ffd0")
    back = JIT + len(code)
    base = STACK.limit + 0x40
    names = asm.labels
    locals_of_method = [names["back in outer"]] * 3  # a scan would take them
    words: list[int | str] = [0xB, "ebp", 0, back, *locals_of_method, "method", 0, names["back in outer"]]
    words += ["outer", 0, names["back in start"], 0]
    stack = Stack(*words, base=base)
    chain = ("ebp", "method", "outer")
    for mark, following in pairwise(chain):
        stack.words[(stack[mark] - base) // 4] = stack[following]
    registers = {"eip": names["in inner"], "esp": base, "ebp": stack["ebp"], "ebx": 0xB}
    expected = [names["in inner"], back, names["back in outer"], names["back in start"]]
    if at_entry:
        registers = {"eip": JIT + 1, "esp": stack["method"], "ebp": stack["outer"], "eax": 0}
        expected = [JIT + 1, *expected[2:]]
    text = (code + OPAQUE).ljust(0x100, b"\xcc")
    return walk(asm, stack, registers, segments={JIT: text}, source=lambda _: source), expected


def test_ebp_leads_to_the_caller_of_a_method_past_words_that_a_scan_would_take() -> None:
    found, expected = through_method(Managed())
    assert [frame.ip for frame in found.frames] == expected
    assert found.frames[2].trust is Trust.FRAME_POINTER
    assert found.is_complete
    assert found.frames[2].note == ""


def test_a_method_without_a_name_has_the_sources_reason_as_note_of_the_next_frame() -> None:
    found, _ = through_method(Managed(name=""))
    assert found.frames[2].note == "not readable"


def test_a_method_that_was_stopped_before_it_has_set_ebp_is_not_left_by_ebp() -> None:
    """`push ebp` has run, `mov ebp, esp` has not: ebp is that of outer, whose caller it would give."""
    found, expected = through_method(Managed(), at_entry=True)
    assert [frame.ip for frame in found.frames] == expected
