# SPDX-License-Identifier: Apache-2.0
"""Return addresses of 0: that of the outermost frame, and those that a buffer overrun has written."""

from __future__ import annotations

import pytest

from tests.unwind.x86.assemble import EBP, ESI, ESP, LEAVE, Assembler, mov, pop, push, ret, sub
from tests.unwind.x86.machine import BASE, EXPORTS, TEXT, export_page, header_page
from tests.unwind.x86.written_stack import STACK, Stack, walk
from throwstack.core.frames import End, Trust, Walk

NOTE = "after a return address that was overwritten"


def program(start: str = "BaseThreadStart") -> Assembler:
    """start calls outer, outer calls middle, and middle calls a function with a buffer of 64 bytes."""
    asm = Assembler(TEXT)
    asm.label(start).emit("33ed").call("outer").label("back in start").emit("cc").align()
    for name, callee in (("outer", "middle"), ("middle", "overrun")):
        asm.label(name).emit(push(EBP), mov(EBP, ESP), push(ESI)).call(callee).label(f"back in {name}")
        asm.emit(pop(ESI), LEAVE, ret()).align()
    asm.label("overrun").emit(push(EBP), mov(EBP, ESP), sub(ESP, 0x40)).label("here").emit("8bc1", LEAVE, ret())
    return (
        asm.align()
        .label("far")
        .emit(push(EBP), mov(EBP, ESP), sub(ESP, 0x1000), "ffd0")
        .label("back in far")
        .emit("cc")
    )


def zeroed(asm: Assembler, *, saved_ebp: int = 0, base: int = STACK.base - 0x800) -> Stack:
    """The buffer, then the saved ebp and the return address of `overrun`."""
    middle = base + 4 * 18
    return Stack(
        *([0] * 16), "ebp", saved_ebp, "lost", 0,
        *(0x51, middle + 0x10, asm.labels["back in outer"], 0x52),
        *(middle + 0x20, "outer returns", asm.labels["back in start"], "last", 0),
        base=base,
    )  # fmt: skip


def walked(asm: Assembler, stack: Stack, **options):
    registers = {"eip": asm.labels["here"], "esp": stack.base, "ebp": stack["ebp"]}
    return walk(asm, stack, registers, **options)


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
def test_a_zero_in_the_middle_of_a_stack_was_written_over_a_return_address(has_symbols):
    asm = program()
    stack = zeroed(asm)
    found = walked(asm, stack, has_symbols=has_symbols)
    expected = [asm.labels["here"], asm.labels["back in outer"], asm.labels["back in start"]]
    assert [frame.ip for frame in found.frames] == expected
    assert (found.frames[1].trust, found.frames[1].note) == (Trust.SCAN, NOTE)
    assert (found.is_complete, found.end) == (False, End.LOST_RETURN_ADDRESS)
    assert found.detail == f"the return address at {stack['lost']:#x} was overwritten: it is 0x0"


def test_a_zero_near_the_base_is_overwritten_if_a_saved_frame_pointer_leads_further_up():
    """Only the frame of the start routine is left above, and its return address is 0 as well."""
    asm = program()
    stack = Stack(*([0] * 16), "ebp", 0, "lost", 0, "start's ebp", 0, 0, base=STACK.base - 0x60)
    assert walked(asm, stack, has_symbols=False).is_complete
    stack.words[16] = stack["start's ebp"]
    assert walked(asm, stack, has_symbols=False).end is End.LOST_RETURN_ADDRESS


@pytest.mark.parametrize(
    ("saved", "is_complete"),
    [(STACK.base - 8, False), (STACK.base - 7, True), (STACK.base - 4, True), (STACK.base - 0x1C, True)],
    ids=["the last pair", "no whole pair", "one word", "the return address itself"],
)
def test_a_saved_frame_pointer_leads_to_another_pair_on_the_stack(saved, is_complete):
    """A frame's pair of saved ebp and return address is above the return address of what it called."""
    asm = program()
    stack = Stack(*([0] * 16), "ebp", saved, "lost", 0, base=STACK.base - 0x60)
    assert stack["lost"] == STACK.base - 0x1C
    assert walked(asm, stack, has_symbols=False).is_complete is is_complete


def test_where_threads_start_is_known_by_ntdlls_symbols():
    """Since Vista all threads start in RtlUserThreadStart: a zero in another function is no end, even at the base."""
    asm = program("_RtlUserThreadStart")
    stack = Stack(*([0] * 16), "ebp", 0, "lost", 0, base=STACK.base - 0x60)
    assert walked(asm, stack, exports=(), module="ntdll.dll").end is End.LOST_RETURN_ADDRESS
    assert walked(asm, stack, exports=(), module="other.dll").is_complete
    whole = zeroed(asm)
    whole.words[17] = asm.labels["back in middle"]
    assert walked(asm, whole, exports=(), module="ntdll.dll").is_complete


NTDLL_BASE = 0x77000000
NTDLL_SINCE_VISTA = {
    NTDLL_BASE: header_page(),
    NTDLL_BASE + EXPORTS - BASE: export_page({"RtlUserThreadStart": TEXT}),
}


def walked_since_vista(module: str, *, above: int) -> Walk:
    """Walk from a function of `module` whose return address is 0, `above` bytes below the base of the stack."""
    stack = Stack(*([0] * 16), "ebp", 0, "last", 0, base=STACK.base - 0x48 - above)
    options = {"exports": (), "module": module, "absent": "ntdll.dll", "segments": NTDLL_SINCE_VISTA}
    return walked(program(), stack, has_symbols=False, **options)


@pytest.mark.parametrize(("above", "is_complete"), [(0, True), (0x80, True), (0x84, False), (0x800, False)])
def test_a_coroutine_s_stack_may_be_in_the_teb_and_start_in_any_function_of_the_program(above, is_complete):
    """A library lays out the first frame at the base. With more above it, a memset has wiped callers."""
    walk = walked_since_vista("app.exe", above=above)
    assert walk.is_complete is is_complete
    assert walk.end in (End.THREAD_START, End.LOST_RETURN_ADDRESS)


@pytest.mark.parametrize(("above", "is_complete"), [(0x80, True), (0x84, False)])
def test_an_ntdll_of_which_nothing_is_in_the_dump_may_be_one_since_vista(above, is_complete):
    stack = Stack(*([0] * 16), "ebp", 0, "last", 0, base=STACK.base - 0x48 - above)
    options = {"exports": (), "module": "app.exe", "has_symbols": False}
    assert walked(program(), stack, absent="ntdll.dll", **options).is_complete is is_complete
    assert walked(program(), stack, absent="other.dll", **options).is_complete


@pytest.mark.parametrize("module", ["kernel32.dll", "KERNELBASE.dll"])
def test_a_function_of_windows_is_not_the_outermost_even_at_the_base(module):
    assert walked_since_vista(module, above=0).end is End.LOST_RETURN_ADDRESS


def test_a_function_of_ntdll_may_be_its_start_routine_unless_symbols_name_it():
    """With exports only, RtlUserThreadStart jumps to a function without a name."""
    asm = program("_RtlUserThreadStart")
    stack = Stack(*([0] * 16), "ebp", 0, "last", 0, base=STACK.base - 0x60)
    options = {"module": "ntdll.dll", "absent": "kernel32.dll"}
    assert walked(asm, stack, exports=(), **options).end is End.LOST_RETURN_ADDRESS
    for exports in (("_RtlUserThreadStart",), ("_RtlUserThreadStart", "overrun")):
        assert walked(asm, stack, exports=exports, has_symbols=False, **options).is_complete


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
@pytest.mark.parametrize("function", ["BaseThreadInitThunk", "other"])
def test_what_the_start_routine_has_called_is_never_the_outermost(function, has_symbols):
    """Its return address is the last one on the stack, so that nothing above tells that it was overwritten."""
    asm = Assembler(TEXT).label(function).emit(push(EBP), mov(EBP, ESP), "ffd0").label("here").emit(LEAVE, ret())
    stack = Stack("ebp", 0, "last", 0, base=STACK.base - 0x60)
    found = walked(asm, stack, exports=(function,), module="kernel32.dll", has_symbols=has_symbols)
    assert found.is_complete is (function == "other")


def test_the_function_that_the_start_routine_jumps_to_has_a_caller():
    """ntdll!__RtlUserThreadStart, as Microsoft's symbols call it, returns to _RtlUserThreadStart."""
    asm = Assembler(TEXT).label("__RtlUserThreadStart").emit(push(EBP), mov(EBP, ESP), "ffd0").label("here")
    asm.emit(LEAVE, ret())
    stack = Stack("ebp", 0, "last", 0, base=STACK.base - 0x60)
    options = {"exports": (), "absent": "kernel32.dll"}
    assert walked(asm, stack, module="ntdll.dll", **options).end is End.LOST_RETURN_ADDRESS
    assert walked(asm, stack, module="other.dll", **options).is_complete


@pytest.mark.parametrize("has_symbols", [True, False], ids=["symbols", "exports"])
@pytest.mark.parametrize(
    ("routine", "is_start"),
    [
        *((name, True) for name in ("BaseThreadStart", "BaseProcessStart", "BaseFiberStart")),
        *((name, True) for name in ("RtlUserThreadStart", "RtlUserFiberStart")),
        ("LdrInitializeThunk", False),
        ("OtherStart", False),
    ],
)
def test_a_start_routine_has_no_caller_whatever_is_above_it(routine, is_start, has_symbols):
    """Above the frame is what looks like a return address, so that only the name shows that the walk is complete."""
    asm = program(routine)
    stack = zeroed(asm)
    stack.words[17] = asm.labels["back in middle"]
    stack.words += [0, 0, asm.labels["back in middle"]]
    found = walked(asm, stack, exports=(routine,), module="ntdll.dll", absent="kernel32.dll", has_symbols=has_symbols)
    assert found.is_complete is is_start


def test_the_loader_s_thunk_is_a_start_routine_since_vista():
    """Where ntdll has RtlUserThreadStart. Before, KiUserApcDispatcher calls the thunk."""
    asm = program("LdrInitializeThunk").label("RtlUserThreadStart").emit("cc")
    stack = zeroed(asm)
    stack.words[17] = asm.labels["back in middle"]
    stack.words += [0, 0, asm.labels["back in middle"]]
    assert walked(asm, stack, exports=(), module="ntdll.dll", absent="kernel32.dll").is_complete


def test_a_function_after_the_start_routine_that_has_no_name_is_not_a_start_routine():
    """Exports only. The nearest one is a start routine's, and no filling is between: the name is not certain."""
    asm = Assembler(TEXT).label("RtlUserFiberStart").emit(push(EBP), mov(EBP, ESP), LEAVE, ret())
    asm.label("nameless").emit(push(EBP), mov(EBP, ESP), "ffd0").label("here").emit(LEAVE, ret())
    stack = Stack("ebp", 0, "lost", 0, asm.labels["here"], base=STACK.base - 0x800)
    found = walked(asm, stack, exports=("RtlUserFiberStart",), module="ntdll.dll", has_symbols=False)
    assert found.end is End.LOST_RETURN_ADDRESS


@pytest.mark.parametrize("distance", [0x4000, 0x4004])
def test_a_zero_further_from_the_base_than_threads_start_is_no_end(distance):
    asm = program("start")
    slot = STACK.base - 4 - distance
    stack = Stack(*([0] * 16), "ebp", 0, "lost", 0, base=slot - 4 * 17)
    registers = {"eip": asm.labels["here"], "esp": stack.base, "ebp": stack["ebp"]}
    labels = {"exports": ("start",), "has_symbols": False, "limit": STACK.base - 0x8000}
    assert walk(asm, stack, registers, **labels).is_complete is (distance == 0x4000)


def test_a_frame_larger_than_the_scan_is_passed_by_its_frame_pointer():
    asm = program()
    words = [0] * 16 + [0, 0] + [0] * 0x260
    base = STACK.base - 0xB00
    stack = Stack(
        *words, "middle's ebp", 0, asm.labels["back in outer"], 0x52, 0, asm.labels["back in start"], 0, base=base
    )
    stack.marks["ebp"] = base + 4 * 16
    stack.words[16] = stack["middle's ebp"]
    stack.words[stack.words.index(0x52) + 1] = 0
    found = walked(asm, stack)
    assert [frame.ip for frame in found.frames[:2]] == [asm.labels["here"], asm.labels["back in outer"]]
    assert (found.frames[1].trust, found.frames[1].note) == (Trust.SCAN, NOTE)
    assert not found.is_complete


@pytest.mark.parametrize("word", [0, 0x41414141], ids=["zero", "in no code"])
def test_above_a_start_routine_may_be_anything(word):
    """Also what looks like a return address after a call of the routine."""
    asm = program().label("calls start").call("BaseThreadStart").label("after start").emit("cc")
    stack = Stack("last", word, *([word] * 2 if word else [asm.labels["after start"]] * 2), 0)
    found = walk(asm, stack, {"eip": asm.labels["back in start"], "esp": stack["last"], "ebp": 0})
    assert (len(found.frames), found.is_complete) == (1, True)
    assert found.frames[0].return_address == 0
