# SPDX-License-Identifier: Apache-2.0
"""A thread that has returned into an unloaded DLL, with the ebp of a function further out."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EBP, EBX, ESI, ESP, LEAVE, Assembler, mov, pop, push, ret, sub
from tests.unwind.x86.machine import BASE, TEXT, Records
from tests.unwind.x86.written_stack import STACK, Stack, slots, walk
from throwstack.core.frames import End, Trust
from throwstack.core.registers import Arch, Registers
from throwstack.names.frame_records import FrameData
from throwstack.names.symbols import Name
from throwstack.unwind.x86.call_frame import Caller, Place
from throwstack.unwind.x86.candidates import Candidate, Rule
from throwstack.unwind.x86.nearer_caller import nearer_caller
from throwstack.unwind.x86.return_address import Fit

GONE = 0x6B0010AA


def program() -> Assembler:
    """start calls outer, which has a frame pointer; outer calls plain, and that calls the DLL, without one."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("cc").align()
    asm.label("outer").emit(push(EBP), mov(EBP, ESP), sub(ESP, 8), push(ESI)).call("plain").label("back in outer")
    asm.emit(pop(ESI), LEAVE, ret()).align()
    asm.label("plain").emit(push(EBX), sub(ESP, 8), "ffd0").label("back in plain").emit("83c408", pop(EBX), ret())
    asm.align().label("other").emit(push(EBP), mov(EBP, ESP), sub(ESP, 0x40), "ffd0").label("back in other")
    return asm.emit(LEAVE, ret()).align()


def gone(asm: Assembler, left_over: int = 0) -> Stack:
    """The unloaded function's locals, one of which may be left over from an earlier call, then plain's frame."""
    return Stack(
        *("esp", 7, left_over, 7, "gone returns", asm.labels["back in plain"], 0, 0, 0xB),
        *("plain returns", asm.labels["back in outer"], 0x51, 0, 0),
        *("outer's ebp", 0, "outer returns", asm.labels["back in start"], "start's", 0),
    )


def walked(asm: Assembler, stack: Stack, ebp: str, **options):
    registers = {"eip": GONE, "esp": stack["esp"], "ebp": stack[ebp]}
    return walk(asm, stack, registers, **options)


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
def test_the_nearest_return_address_from_which_the_walk_leads_to_ebp_is_the_caller(has_symbols):
    asm = program()
    stack = gone(asm)
    found = walked(asm, stack, "outer's ebp", has_symbols=has_symbols)
    assert slots(found) == [stack[name] for name in ("gone returns", "plain returns", "outer returns", "start's")]
    assert found.frames[1].trust is Trust.SCAN
    assert found.frames[1].note == "the walk from here leads to the frame of ebp"
    registers = zip(Arch.X86.register_names, found.frames[1].registers.gpr, strict=True)
    known = {"esp": stack["gone returns"] + 4, "ebp": stack["outer's ebp"]}
    assert {name: value for name, value in registers if value is not None} == known
    assert found.frames[2].registers.gpr[EBX] == 0xB
    assert found.end is End.LOST_RETURN_ADDRESS


def test_a_return_address_that_was_left_over_does_not_lead_there():
    """The function `other`, called before, had a frame pointer in another place."""
    asm = program()
    stack = gone(asm, asm.labels["back in other"])
    assert slots(walked(asm, stack, "outer's ebp"))[0] == stack["gone returns"]


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
def test_the_leave_of_a_function_that_was_called_before_does_not_lead_there(has_symbols):
    """`leave; ret` of `other` leads from ebp to the frame of `outer`, as it would from anywhere. Its esp does not.

    `outer` was called by a pointer, so that the call before its return address may be one of `other`.
    """
    asm = program()
    asm.label("by pointer").emit("33ed", "ffd0").label("back in by pointer").emit("cc")
    stack = gone(asm, asm.labels["back in other"])
    stack.words[stack.words.index(asm.labels["back in start"])] = asm.labels["back in by pointer"]
    found = walked(asm, stack, "outer's ebp", has_symbols=has_symbols)
    assert slots(found)[:2] == [stack["gone returns"], stack["plain returns"]]


def test_a_chain_that_was_left_over_and_ends_on_the_way_does_not_lead_there():
    """Earlier calls have left two frames of `plain`. What the second one returned to was overwritten."""
    asm = program()
    stack = gone(asm)
    old = [7, *[asm.labels["back in plain"], 0, 0, 0xB] * 2, 4]
    deeper = Stack("esp", *old, *stack.words)
    deeper.marks |= {name: at + 4 * len(old) for name, at in stack.marks.items() if name != "esp"}
    assert slots(walked(asm, deeper, "outer's ebp"))[0] == deeper["gone returns"]


@pytest.mark.parametrize("fit", [Fit.OUTSIDE, Fit.UNREADABLE, Fit.NOT_CODE])
def test_a_word_that_a_scan_alone_does_not_show_to_be_a_return_address_is_passed_over(fit):
    """The frame of ebp has its return address at 0x1020. All words of the stack seem to lead there."""

    def found(rule: Rule, slot: int, fit: Fit) -> Candidate:
        return Candidate(rule, Caller(slot, 0x401005, slot + 4, 0, (None,) * 8), fit, trust=Trust.PROLOGUE)

    by_frame_pointer, true = found(Rule.FRAME_POINTER, 0x1020, Fit.POSSIBLE), found(Rule.SCAN, 0x1010, Fit.POSSIBLE)
    chosen = nearer_caller(
        Place(Registers(GONE, (None,) * 8)),
        by_frame_pointer,
        [found(Rule.SCAN, 0x1008, fit), true],
        lambda _: found(Rule.FUNCTION, 0x1020, Fit.CONFIRMED),
        lambda caller: Place(Registers(caller.return_address, caller.gpr), caller.call_sp),
    )
    assert chosen is not None
    assert chosen.caller.slot == true.caller.slot


@pytest.mark.parametrize(("left_over", "is_found"), [(15, True), (16, False)])
def test_sixteen_return_addresses_are_tried(left_over, is_found):
    asm = program()
    locals_ = [asm.labels["back in other"]] * left_over
    stack = Stack(
        *("esp", 7, *locals_, "gone returns", asm.labels["back in plain"], 0, 0, 0xB),
        *("plain returns", asm.labels["back in outer"], 0x51, 0, 0),
        *("outer's ebp", 0, "outer returns", asm.labels["back in start"], 0),
    )
    found = slots(walked(asm, stack, "outer's ebp"))
    assert found[0] == stack["gone returns" if is_found else "outer returns"]


@pytest.mark.parametrize(("frames", "is_found"), [(63, True), (64, False)])
def test_the_walk_to_ebp_has_sixty_four_steps(frames, is_found):
    """`begin` calls `again`, which calls itself, without a frame pointer. The last step is begin's own."""
    asm = program()
    asm.label("again").emit(push(EBX)).call("again").label("back in again").emit(pop(EBX), ret()).align()
    asm.label("begin").emit(push(EBP), mov(EBP, ESP)).call("again").label("back in begin").emit(LEAVE, ret())
    asm.label("first").call("begin").label("back in first").emit("cc")
    returns = [word for _ in range(frames - 1) for word in (0xB, asm.labels["back in again"])]
    stack = Stack(
        *("esp", 7, "gone returns", asm.labels["back in again"], *returns, 0xB, asm.labels["back in begin"]),
        *("begin's ebp", 0, "begin returns", asm.labels["back in first"], 0),
        base=STACK.base - 0x800,
    )
    found = slots(walked(asm, stack, "begin's ebp"))
    assert found[0] == stack["gone returns" if is_found else "begin returns"]


def test_if_no_return_address_leads_to_ebp_it_is_followed():
    """The unloaded function has a frame pointer. Nothing between esp and ebp was called from there."""
    asm = program()
    words = [7, asm.labels["back in other"], 7, asm.labels["back in plain"], 7]
    stack = Stack("esp", *words, "gone's ebp", 0, "gone returns", asm.labels["back in outer"], 0x51, 0, 0)
    stack.marks["outer's ebp"] = stack.base + 4 * len(stack.words)
    stack.words[5] = stack["outer's ebp"]
    stack.words += [0, asm.labels["back in start"], 0]
    found = walked(asm, stack, "gone's ebp")
    assert slots(found)[0] == stack["gone returns"]
    assert found.frames[1].trust is Trust.SCAN


def test_a_frame_pointer_of_the_unloaded_dll_itself_is_known_by_the_call_before_its_return_address():
    """A function called `through` before had the frame at the very place that the unloaded one has now."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("cc").align()
    asm.label("outer").emit(push(EBP), mov(EBP, ESP)).absolute("ff15", "import").label("back in outer")
    asm.emit(LEAVE, ret()).align()
    asm.label("through").emit(push(EBP), mov(EBP, ESP), sub(ESP, 4), "ffd0").label("back in through")
    asm.emit(LEAVE, ret()).align().label("import").emit((GONE - 0x10).to_bytes(4, "little"))
    stack = Stack("esp", 7, asm.labels["back in through"], 0, "gone's ebp", 0, "gone returns")
    stack.words += [asm.labels["back in outer"], 0, asm.labels["back in start"], 0]
    stack.words[3] = stack.base + 4 * 5
    registers = {"eip": GONE, "esp": stack["esp"], "ebp": stack["gone's ebp"]}
    assert slots(walk(asm, stack, registers))[0] == stack["esp"] + 4
    named = {"name_outside": lambda at: Name(at, "<Unloaded_gone.dll>") if at >> 16 == GONE >> 16 else None}
    assert slots(walk(asm, stack, registers, **named))[0] == stack["gone returns"]


def test_the_walk_to_ebp_goes_by_records_where_code_says_nothing():
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("cc").align()
    asm.label("outer").emit(push(EBP), mov(EBP, ESP), sub(ESP, 8), push(ESI)).call("plain").label("back in outer")
    asm.emit(pop(ESI), LEAVE, ret()).align().label("plain").emit("ffe0ffd0").label("back in plain").emit("ebfe").align()
    record = FrameData(asm.labels["plain"] - BASE, 0x10, 0, 0, 4, 8, "", False)
    stack = gone(asm)
    assert slots(walked(asm, stack, "outer's ebp"))[0] == stack["plain returns"]
    assert slots(walked(asm, stack, "outer's ebp", records=Records([record])))[0] == stack["gone returns"]
