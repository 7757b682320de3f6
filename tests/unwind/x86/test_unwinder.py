# SPDX-License-Identifier: Apache-2.0
"""Walks over stacks written down word by word: one situation each, expected by label."""

from __future__ import annotations

import random
import struct

import pytest

from tests.unwind.x86.assemble import EAX, EBP, EBX, ECX, ESI, ESP, LEAVE, Assembler, add, mov, pop, push, ret, sub
from tests.unwind.x86.machine import (
    BASE,
    STACK_BASE,
    TEXT,
    TEXT_SIZE,
    Records,
)
from tests.unwind.x86.written_stack import STACK, Stack, slots, walk
from throwstack.core.budgets import Budget, Budgets, Meter
from throwstack.core.frames import End, LeftOut, Trust
from throwstack.core.memory import memory_of
from throwstack.names.frame_records import FrameData
from throwstack.unwind.x86.unwinder import registration_chain


def program(*, has_ebp: bool = True) -> Assembler:
    """start calls outer(1, 2), which calls inner: frames of both kinds."""
    asm = Assembler(TEXT)
    asm.label("BaseThreadStart").emit("33ed", "6a02", "6a01").call("outer").label("back in start")
    asm.emit("ffd3").label("back in start from somewhere").emit("cc").align()
    asm.label("outer")
    if has_ebp:
        asm.emit(push(EBP), mov(EBP, ESP))
    asm.emit(sub(ESP, 8), push(ESI)).call("inner").label("back in outer").emit(pop(ESI))
    asm.emit(LEAVE if has_ebp else add(ESP, 8), ret(8)).align()
    asm.label("inner").emit(push(EBX)).label("in inner").emit("8bc1", pop(EBX), ret()).align()
    asm.label("stub").emit("b807010000", "ba0003fe7f", "ff12").label("back in stub").emit(ret(8)).align()
    asm.label("KiFastSystemCallRet").emit(ret()).align()
    asm.label("waits").emit("6a02", "6a01").call("stub").label("back in waits").emit(ret()).align()
    asm.label("calls null").emit(push(EBP), mov(EBP, ESP), "33c0", "ffd0").label("back from null").emit(LEAVE, ret())
    return asm


def ebp_frames(asm) -> Stack:
    return Stack(
        *("esp", 0xB, "inner returns", asm.labels["back in outer"]),
        *(0x51, 0, 0, "ebp", 0, "outer returns", asm.labels["back in start"], 1, 2, "start returns", 0),
    )


@pytest.mark.parametrize("has_symbols", [True, False])
@pytest.mark.parametrize("has_ebp", [True, False])
def test_frames_with_and_without_ebp(has_symbols, has_ebp):
    asm = program(has_ebp=has_ebp)
    stack = ebp_frames(asm)
    if not has_ebp:
        del stack.words[5]
        stack.marks = {name: at - 4 if at > stack["ebp"] else at for name, at in stack.marks.items()}
    registers = {"eip": asm.labels["in inner"], "esp": stack["esp"], "ebp": stack["ebp"] if has_ebp else 0, "esi": 5}
    found = walk(asm, stack, registers, has_symbols=has_symbols)
    assert slots(found) == [stack["inner returns"], stack["outer returns"], stack["start returns"]]
    assert [frame.child_sp for frame in found.frames] == [slot - 4 for slot in slots(found)]
    assert [frame.trust for frame in found.frames] == [Trust.CONTEXT, Trust.PROLOGUE, Trust.PROLOGUE]
    assert found.is_complete
    outer, start = found.frames[1].registers, found.frames[2].registers
    assert (outer.gpr[EBX], outer.gpr[ESI]) == (0xB, 5)
    assert (start.gpr[ESI], start.bp) == (0x51, 0)
    assert start.sp == stack["outer returns"] + 4 + 8
    assert start.gpr[EAX] is None
    assert start.gpr[ECX] is None


def test_a_thread_that_waits_in_a_system_call_stub():
    # the thread waits in the kernel: eip on the bare `ret`, the stub's return address on top of the stack
    asm = program()
    stack = Stack(
        *("esp", asm.labels["back in stub"], "stub returns", asm.labels["back in waits"], 1, 2),
        *("waits returns", asm.labels["back in start from somewhere"], "end", 0),
    )
    registers = {"eip": asm.labels["KiFastSystemCallRet"], "esp": stack["esp"], "ebp": 0}
    found = walk(asm, stack, registers)
    assert slots(found)[:3] == [stack["esp"], stack["stub returns"], stack["waits returns"]]


def test_a_call_through_null_returns_to_the_word_on_top_of_the_stack():
    asm = program()
    stack = Stack(
        "esp", asm.labels["back from null"], "ebp", 0, "returns", asm.labels["back in start from somewhere"], 0
    )
    found = walk(asm, stack, {"eip": 0, "esp": stack["esp"], "ebp": stack["ebp"]})
    assert slots(found)[:2] == [stack["esp"], stack["returns"]]


def test_a_return_address_after_a_call_of_another_function_is_not_believed():
    asm = program()
    stack = Stack("esp", asm.labels["back from null"], "ebp", 0, "returns", asm.labels["back in start"], 0)
    found = walk(asm, stack, {"eip": 0, "esp": stack["esp"], "ebp": stack["ebp"]})
    assert slots(found) == [stack["esp"], None]
    assert found.end is End.NO_RETURN_ADDRESS


def test_without_readable_code_the_frame_pointer_is_a_guess():
    asm = program()
    stack = ebp_frames(asm)
    stack.words[0] = stack["ebp"]
    registers = {"eip": asm.labels["back in outer"], "esp": stack["inner returns"] + 4, "ebp": stack["ebp"]}
    found = walk(asm, stack, registers, code=b"")
    assert all(frame.trust in {Trust.CONTEXT, Trust.SCAN} for frame in found.frames)


def test_a_stale_return_address_is_passed_over():
    # between the frames are return addresses that earlier calls of another function have left
    asm = program(has_ebp=False)
    stack = Stack(
        *("esp", 0xB, "inner returns", asm.labels["back in outer"], 0x51),
        *(asm.labels["back in waits"], asm.labels["back in waits"]),
        *("outer returns", asm.labels["back in start"], 1, 2, 0),
    )
    found = walk(asm, stack, {"eip": asm.labels["in inner"], "esp": stack["esp"], "ebp": 0}, has_symbols=False)
    assert slots(found)[:2] == [stack["inner returns"], stack["outer returns"]]


def test_a_zero_that_is_reached_by_guesses_is_not_the_start_of_the_thread():
    # what an unknown callee removes is a guess where the caller cleans up after several calls at once
    asm = program()
    asm.label("outer 2").emit(push(ESI))
    for value, name in enumerate(["", "victim", "", ""]):
        asm.emit(bytes([0x6A, value]))
        asm.call(name) if name else asm.emit("ff1500004f00")
        asm.label(f"after call {value}")
    asm.emit(add(ESP, 0x10), pop(ESI), ret()).align()
    asm.label("calls outer 2").call("outer 2").label("back in its caller").emit(ret()).align()
    asm.label("victim").emit(ret()).align()
    stack = Stack(
        *("victim returns", asm.labels["after call 1"], 1, 0, 0x51),
        *("outer returns", asm.labels["back in its caller"], 0, 0, 0),
    )
    found = walk(asm, stack, {"eip": asm.labels["victim"], "esp": stack["victim returns"]}, has_symbols=False)
    assert slots(found)[:2] == [stack["victim returns"], stack["outer returns"]]


@pytest.mark.parametrize("has_symbols", [True, False])
@pytest.mark.parametrize("stale", ["", "back in start from somewhere"])
def test_after_a_call_that_never_returns_another_block_begins(has_symbols, stale):
    """As clang writes `if (n < 100) throw n;` without optimization: the jump's esp is not the one the throw leaves."""
    asm = program()
    asm.align().label("throw").emit("cc", ret(8)).align()
    asm.label("throws").emit(push(EBP), mov(EBP, ESP), sub(ESP, 0x18), "837d0864").branch(0x8D, "next")
    asm.emit("c7042401000000", "c744240402000000").call("throw").label("next").emit("8b4508", add(ESP, 0x18), pop(EBP))
    asm.emit(ret())
    # throw removes 8 bytes, and 8 bytes too far up is what `add esp, 18h; pop ebp; ret` would then return to
    stack = Stack(
        *("throw returns", asm.labels["next"], 1, 2, 3, 4, 5, 6, "ebp", 0),
        *("returns", asm.labels["back in start from somewhere"], 100, asm.labels[stale] if stale else 0, 0, 0),
    )
    registers = {"eip": asm.labels["throw"] + 1, "esp": stack["throw returns"], "ebp": stack["ebp"]}
    found = walk(asm, stack, registers, has_symbols=has_symbols)
    assert slots(found)[:2] == [stack["throw returns"], stack["returns"]]


def interrupted_stack() -> tuple[Assembler, Stack, Stack]:
    """inner, called by KiUserExceptionDispatcher, which was entered with inner interrupted further out."""
    asm = program().align().label("KiUserExceptionDispatcher").emit("8b4c2404", "8b1c24", "51", "53").call("inner")
    asm.label("back in the dispatcher").emit("cc").align()
    inside = ebp_frames(asm)
    context = bytearray(0x2CC)
    struct.pack_into("<I", context, 0, 0x10007)
    struct.pack_into("<6I", context, 0xB4, inside["ebp"], asm.labels["in inner"], 0x1B, 0x202, inside["esp"], 0x23)
    low = inside.base - 0x400
    saved = low + 0x100
    words = [0xB, asm.labels["back in the dispatcher"], low + 0x80, saved]
    data = struct.pack("<4I", *words).ljust(0x80, b"\0") + struct.pack("<I", 0xC0000005)
    data = (data.ljust(0x100, b"\0") + context).ljust(0x400, b"\0") + inside.data
    outside = Stack(*struct.unpack(f"<{len(data) // 4}I", data), base=low)
    return asm, inside, outside


def test_an_interrupted_frame_goes_on_with_its_own_registers():
    asm, inside, outside = interrupted_stack()
    low, saved = outside.base, outside.words[3]
    found = walk(asm, outside, {"eip": asm.labels["in inner"], "esp": low, "ebp": 0}, module="ntdll.dll")
    assert [frame.trust for frame in found.frames[:3]] == [Trust.CONTEXT, Trust.PROLOGUE, Trust.CONTEXT]
    dispatcher, interrupted = found.frames[1:3]
    assert dispatcher.return_address == interrupted.ip == asm.labels["in inner"]
    assert interrupted.is_interrupted
    assert interrupted.note == f"interrupted: CONTEXT at {saved:#x}"
    assert slots(found)[2:] == [inside["inner returns"], inside["outer returns"], inside["start returns"]]


def test_a_function_of_the_dispatcher_s_name_in_another_module_is_an_ordinary_one():
    asm, _, outside = interrupted_stack()
    found = walk(asm, outside, {"eip": asm.labels["in inner"], "esp": outside.base, "ebp": 0}, module="test.dll")
    assert not any(frame.is_interrupted for frame in found.frames[1:])


def test_frame_data_gives_cfi_frames():
    asm = program()
    stack = ebp_frames(asm)
    rva = asm.labels["outer"] - BASE
    record = FrameData(rva, 0x20, 6, 8, 4, 8, "$T0 $ebp = $eip $T0 4 + ^ = $ebp $T0 ^ = $esp $T0 8 + =", True)
    registers = {"eip": asm.labels["in inner"], "esp": stack["esp"], "ebp": stack["ebp"]}
    found = walk(asm, stack, registers, records=Records([record]))
    assert [frame.trust for frame in found.frames] == [Trust.CONTEXT, Trust.PROLOGUE, Trust.CFI]


@pytest.mark.parametrize("innermost", ["in inner", "after call"])
def test_a_record_counts_from_the_arguments_that_were_pushed(innermost):
    """FPO says that 8 bytes of locals are below the return address. inner was passed nothing, as far as one knows."""
    asm = Assembler(TEXT).label("BaseThreadStart").emit("33ed").call("outer").label("back in start").emit("cc").align()
    asm.label("outer").emit("ffe0").call("inner").label("after call").emit("ebfe").align()
    asm.label("inner").emit("ffe0").label("in inner").emit("ebfe").align()
    record = FrameData(asm.labels["outer"] - BASE, 0x10, 0, 0, 0, 8, "", False)
    stack = Stack("inner's", 7, asm.labels["after call"], "outer's", 7, 7, asm.labels["back in start"], 0)
    esp = stack["inner's" if innermost == "in inner" else "outer's"]
    found = walk(asm, stack, {"eip": asm.labels[innermost], "esp": esp}, records=Records([record]))
    assert (found.frames[-1].ip, found.frames[-1].trust) == (asm.labels["back in start"], Trust.FPO)


def test_a_walk_never_leaves_the_stack():
    asm = program()
    stack = ebp_frames(asm)
    registers = {"eip": asm.labels["in inner"], "esp": STACK.base + 0x1000, "ebp": 0x7FFE0000}
    found = walk(asm, stack, registers)
    assert found.end is End.STACK_BOUND
    assert len(found.frames) == 1


@pytest.mark.parametrize("distance", [0, -0x20])
def test_a_frame_pointer_beyond_the_stack_is_not_followed(distance):
    """Another stack follows in memory, with a pair like that of a frame. The code of the frame cannot be followed."""
    asm = program()
    asm.label("lost").emit("ffe0", "ffd3").label("back in lost").emit("ebfe")
    stack = Stack("esp", 0, 0, base=STACK_BASE - 0x18)
    pair = struct.pack("<2I", 0, asm.labels["back in start from somewhere"])
    if distance:
        stack.words[:] = [0, 0, *struct.unpack("<2I", pair), 0, 0]
    registers = {
        "eip": asm.labels["back in lost"],
        "esp": stack["esp"],
        "ebp": STACK_BASE if not distance else stack.base + 8,
    }
    found = walk(asm, stack, registers, segments={STACK_BASE: pair.ljust(0x1000, b"\0")})
    assert (len(found.frames) > 1) is bool(distance)


def test_a_stack_without_return_addresses_ends_the_walk():
    asm = program()
    stack = Stack("esp", *range(1, 20))
    found = walk(asm, stack, {"eip": 0x1234, "esp": stack["esp"], "ebp": 3})
    assert found.end is End.NO_RETURN_ADDRESS
    assert found.frames[0].return_address is None


def test_a_walk_ends_at_its_frame_limit():
    asm = program()
    stack = ebp_frames(asm)
    registers = {"eip": asm.labels["in inner"], "esp": stack["esp"], "ebp": stack["ebp"]}
    found = walk(asm, stack, registers, limits={"frame_limit": 2})
    assert (len(found.frames), found.end) == (2, End.FRAME_LIMIT)


@pytest.mark.parametrize("has_symbols", [True, False])
def test_a_deep_recursion_is_walked_to_the_start_of_the_thread(has_symbols):
    asm = (
        Assembler(TEXT).label("BaseThreadStart").emit("33ed").call("recurse").label("back in start").emit("cc").align()
    )
    asm.label("recurse").emit(push(ESI)).call("recurse").label("back").emit(pop(ESI), ret())
    base = STACK_BASE - 0x9000
    depth = 0x8000 // 8
    stack = Stack(*[0x51, asm.labels["back"]] * depth, 0x52, asm.labels["back in start"], 0, 0, base=base)
    registers = {"eip": asm.labels["back"], "esp": base, "ebp": 0}
    found = walk(asm, stack, registers, has_symbols=has_symbols, limit=base)
    assert found.is_complete
    assert len(found.frames) == 1024
    assert found.frames[511].left_out == LeftOut(depth + 2 - 1024, (asm.labels["back"],), base + 4 + 8 * 512 - 4)
    assert found.frames[-1].ip == asm.labels["back in start"]


def test_the_limit_on_followed_code_ends_a_walk_and_spoils_no_frame():
    asm = program()
    stack = ebp_frames(asm)
    registers = {"eip": asm.labels["in inner"], "esp": stack["esp"], "ebp": stack["ebp"]}
    whole = slots(walk(asm, stack, registers, has_symbols=False))
    lengths = []
    for limit in range(400):
        found = walk(asm, stack, registers, has_symbols=False, limits={"work_limit": limit})
        if found.is_complete:
            break
        assert found.end is End.WORK_LIMIT
        assert slots(found)[:-1] == whole[: len(found.frames) - 1]
        lengths.append(len(found.frames))
    assert found.is_complete
    assert slots(found) == whole
    assert (lengths[0], lengths[-1]) == (1, len(whole))
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("has_symbols", [True, False])
def test_a_call_that_never_returns_may_be_the_last_instruction_of_its_section(has_symbols):
    """The return address is the first byte after .text: the call is code, and the return address is not."""
    asm = Assembler(TEXT).label("BaseThreadStart").emit("33ed").call("last").label("back in start").emit("cc").align()
    asm.label("die").emit("ebfe").align()
    asm.emit("cc" * (TEXT_SIZE - (asm.here - TEXT) - 8)).label("last").emit(push(ECX), "6a03").call("die").label("end")
    stack = Stack("esp", asm.labels["end"], 3, 0, "last returns", asm.labels["back in start"], 0)
    found = walk(asm, stack, {"eip": asm.labels["die"], "esp": stack["esp"], "ebp": 0}, has_symbols=has_symbols)
    expected = [asm.labels["die"], asm.labels["end"], asm.labels["back in start"]]
    assert [frame.ip for frame in found.frames] == expected
    assert found.is_complete


def test_a_thread_s_budget_of_code_ends_its_walk_and_the_meter_says_so():
    """The second walk of a thread whose first one has spent all but nothing; the next thread may go on."""
    asm = program()
    stack = ebp_frames(asm)
    registers = {"eip": asm.labels["in inner"], "esp": stack["esp"], "ebp": stack["ebp"]}
    counted = Meter()
    whole = walk(asm, stack, registers, has_symbols=False, limits={"meter": counted})
    assert whole.is_complete
    code = counted.budgets.code
    needed = code.thread - counted.left(code)
    assert needed > 0
    meter = Meter(Budgets(code=Budget("instructions", needed + 1, 4 * needed, needed, needed)))
    limits = {"meter": meter}
    assert walk(asm, stack, registers, has_symbols=False, limits=limits) == whole
    assert meter.spent == ()
    assert walk(asm, stack, registers, has_symbols=False, limits=limits).end is End.WORK_LIMIT
    assert meter.spent == (f"the budget of {needed + 1:,} instructions for a thread is spent",)
    meter.begin_thread()
    assert walk(asm, stack, registers, has_symbols=False, limits=limits) == whole


def test_function_starts_are_looked_for_as_far_as_the_budget_goes():
    """A section that is nothing but calls: each byte may be one, and lead to a function."""
    code = b"\xe8" + b"\x90\0\0\0\xe8" * 800
    asm = Assembler(TEXT)
    meter = Meter(Budgets(starts=Budget("places", 100, 100, 1, 1)))
    registers = {"eip": TEXT + 0x100, "esp": STACK_BASE - 0x100, "ebp": 0}
    asm.labels["BaseThreadStart"] = TEXT
    walk(asm, Stack("esp", 0), registers, has_symbols=False, code=code, limits={"meter": meter})
    assert meter.left(meter.budgets.starts) == 0
    assert meter.spent[0] == "the budget of 100 places for a thread is spent"


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({0: 8, 8: 16, 16: None}, [0, 8, 16]),
        ({0: 8, 8: 0}, [0, 8]),
        ({0: 0}, [0]),
        ({0: 0x7000_0000}, [0]),
        ({0: 6}, [0]),
    ],
)
def test_the_chain_of_exception_registrations_ends(links, expected):
    base = STACK.limit
    data = bytearray(0x100)
    for at, to in links.items():
        struct.pack_into("<I", data, at, 0xFFFFFFFF if to is None else base + to)
    chain = registration_chain(memory_of({base: bytes(data)}), base, STACK)
    assert [address - base for address in chain] == expected


@pytest.mark.parametrize("seed", range(5))
def test_random_code_and_stacks_yield_walks(seed):
    rng = random.Random(seed)
    asm = Assembler(TEXT).label("BaseThreadStart")
    code = rng.randbytes(0x2000)
    words = [TEXT + rng.randrange(0x2000) if rng.random() < 0.5 else rng.randrange(1 << 32) for _ in range(0x100)]
    stack = Stack(*words, base=STACK_BASE - 0x400)
    for _ in range(5):
        esp = stack.base + 4 * rng.randrange(0x100)
        registers = {"eip": TEXT + rng.randrange(0x2000), "esp": esp, "ebp": esp + 4 * rng.randrange(0x40)}
        found = walk(asm, stack, registers, code=code, seh_head=esp + 4 * rng.randrange(0x10))
        slots_found = [slot for slot in slots(found) if slot is not None]
        assert all(STACK.contains(slot, 4) for slot in slots_found)
        assert slots_found == sorted(set(slots_found))
