# SPDX-License-Identifier: Apache-2.0
"""JIT-compiled methods of x64, found by the headers that the runtime keeps of them."""

from __future__ import annotations

import random
import struct

import pytest

from tests.forge.stacks import Label
from tests.support.jit_memory import HEADERS, HEAP, HEAP_BASE, JitHeap, MethodNames, OneRegion
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import RBX
from tests.unwind.x64.scene import BODY, PUSH_RBX_SUB_20, STACK, Scene, gpr, named
from throwstack.core.frames import Trust
from throwstack.core.memory import PAGE_SIZE, Memory, memory_of
from throwstack.images.function_table import RuntimeFunction
from throwstack.managed import jit_code
from throwstack.managed.jit_code import MAX_STEP_BACK, JitCode

INFO = asm.unwind_info([asm.alloc(5, 0x20), asm.push_nonvol(1, RBX)], 5)
CODE = PUSH_RBX_SUB_20 + b"\xff\xd0" + BODY
CALLED = len(PUSH_RBX_SUB_20) + 2
"""Where a method's call returns to."""


def heap() -> JitHeap:
    """Main(), which calls in its body; Run(), with a catch block; Last(), with read-only data after the code."""
    made = JitHeap()
    made.method("Main", [(CODE, INFO)])
    made.method("Run", [(CODE, INFO), (CODE, INFO)])
    made.method("Last", [(CODE, INFO)], data=bytes(0x60))
    return made


def jit(made: JitHeap, **options: object) -> JitCode:
    return JitCode(memory_of(made.segments()), MethodNames(made.descs), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("base", [HEAP_BASE, HEAP, HEAP + 0x10])
def test_each_address_of_the_code_leads_to_its_method(base: int) -> None:
    made = JitHeap(base=base)
    made.method("Main", [(CODE, INFO)])
    made.method("Run", [(CODE, INFO), (CODE, INFO)])
    code = jit(made)
    for name, parts in (("Main", 1), ("Run", 2)):
        start = made.starts[name]
        for address in range(start, start + parts * len(CODE)):
            found = code.function_at(address)
            assert found is not None
            assert (found.name, found.source, found.base) == (name, "clr", base)
            assert found.entry is not None
            part = (address - start) // len(CODE)
            assert found.base + found.entry.begin == start + part * len(CODE)


def test_a_catch_block_is_a_funclet_of_its_method() -> None:
    made = heap()
    method = jit(made).method_at(made.starts["Run"] + len(CODE))
    assert method is not None
    assert method.start == made.starts["Run"]
    assert method.is_funclet(made.starts["Run"] + len(CODE))
    assert not method.is_funclet(made.starts["Run"])


def test_addresses_beside_the_code_belong_to_no_method() -> None:
    """Headers, unwind information and data are no code, and neither is the heap before the first method."""
    made = heap()
    code = jit(made)
    after = made.starts["Last"] + len(CODE)
    for address in (
        HEAP + 0x10,
        made.starts["Main"] - 1,
        made.starts["Main"] + len(CODE),
        after,
        after + 0x60,
        0,
        HEADERS,
    ):
        assert code.function_at(address) is None, hex(address)


def test_reserved_entries_that_are_not_filled_in_are_left_out() -> None:
    """.NET 8 reserves two entries for a `DynamicMethod`, and fills in one."""
    made = JitHeap()
    made.method("dyn", [(CODE, INFO)], reserved=1)
    found = jit(made).method_at(made.starts["dyn"])
    assert found is not None
    assert len(found.entries) == 1


def test_a_method_of_which_the_runtime_s_memory_says_nothing_has_no_name_but_is_unwound() -> None:
    made = heap()
    found = JitCode(memory_of(made.segments())).function_at(made.starts["Main"])
    assert found is not None
    assert (found.name, found.entry is not None) == ("", True)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        pytest.param(0x18, struct.pack("<Q", 0), id="no MethodDesc"),
        pytest.param(0x18, struct.pack("<Q", 0x31000003), id="MethodDesc not aligned"),
        pytest.param(0x20, struct.pack("<I", 0), id="no entries"),
        pytest.param(0x20, struct.pack("<I", 1 << 30), id="too many entries"),
        pytest.param(0x24, struct.pack("<I", 0x7FFFFFFF), id="entry's begin"),
        pytest.param(0x28, struct.pack("<I", 0), id="entry's end"),
        pytest.param(0x2C, struct.pack("<I", 0x10), id="unwind information before the code"),
        pytest.param(0x2C, struct.pack("<I", 0x01000000), id="unwind information elsewhere"),
    ],
)
def test_what_is_no_header_is_refused(offset: int, value: bytes) -> None:
    made = JitHeap()
    made.method("Main", [(CODE, INFO)])
    made.headers[0x10 + offset : 0x10 + offset + len(value)] = value
    assert jit(made).method_at(made.starts["Main"]) is None


def test_the_search_ends_at_an_absent_page_at_the_region_s_begin_and_after_128_kib() -> None:
    made = heap()
    far = made.method("Far", [(CODE + b"\x90" * 3 * PAGE_SIZE, INFO)])
    address = far + 2 * PAGE_SIZE
    assert jit(made).method_at(address) is not None
    lost = Memory(memory_of({at: data for at, data in made.segments().items() if at != HEAP}))
    assert JitCode(lost).method_at(address) is None
    assert jit(made, regions=OneRegion(address & -PAGE_SIZE, address + PAGE_SIZE)).method_at(address) is None
    assert jit(made, regions=OneRegion(HEAP, HEAP + 0x10000, is_executable=False)).method_at(address) is None
    longer = made.method("Longer", [(CODE + b"\x90" * (MAX_STEP_BACK + PAGE_SIZE), INFO)])
    assert jit(made).method_at(longer + MAX_STEP_BACK + 0x100) is None


def test_the_work_for_all_addresses_together_is_bounded() -> None:
    """A heap full of words that could be pointers to headers: the search gives up, also for what it could find."""
    reads = 0

    class Hostile:
        def page(self, address: int) -> bytes | None:
            nonlocal reads
            reads += 1
            return struct.pack("<Q", 0x30000010) * 512

    code = JitCode(Memory(Hostile(), capacity=8))
    for address in range(0x40000000, 0x40000000 + 1000 * 8, 8):
        assert code.method_at(address) is None
    assert reads < 20_000


def test_headers_of_many_entries_count_for_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second word before the code leads to one header of 1,024 entries, none of which covers the address."""
    made = 0
    in_order = jit_code._in_order

    def counted(entries: list[RuntimeFunction]) -> tuple[RuntimeFunction, ...]:
        nonlocal made
        made += len(entries)
        return in_order(entries)

    monkeypatch.setattr(jit_code, "_in_order", counted)
    entries = b"".join(struct.pack("<III", 0x18 + at, 0x19 + at, 0x800) for at in range(1024))
    header = struct.pack("<QQQQI", 0, 0, 1, 0x31000000, 1024) + entries
    words = struct.pack("<QQ", 0x30000000, 0) * (2 * PAGE_SIZE // 16)
    areas = {0x40000000 + at: words for at in range(0, 0x800000, len(words))}
    code = JitCode(memory_of({0x30000000: header, **areas}))
    for address in range(0x40040008, 0x40800000, 0x20000):
        assert code.method_at(address) is None
    assert 0 < made <= jit_code._MAX_HEADERS * 8


def test_no_bytes_raise_an_error() -> None:
    made = heap()
    rng = random.Random(7)
    for _ in range(300):
        segments = {at: bytearray(data) for at, data in made.segments().items()}
        for data in segments.values():
            for _ in range(rng.randrange(4)):
                at = rng.randrange(len(data) - 8)
                data[at : at + 4] = rng.choice((rng.randbytes(4), bytes(4), b"\xff" * 4))
        code = JitCode(memory_of({at: bytes(data) for at, data in segments.items()}), MethodNames(made.descs))
        for start in made.starts.values():
            found = code.method_at(start + CALLED)
            assert found is None or found.start <= start + CALLED < found.end


def test_a_fault_of_a_method_s_first_instruction_is_unwound_from_there() -> None:
    """The runtime has raised the fault of Length() anew: its first instruction is in the place of a return address."""
    made = JitHeap()
    made.method("Length", [(bytes.fromhex("8b4108 c3"), asm.unwind_info([], 0))])
    made.method("Main", [(CODE, INFO)])
    scene = Scene(PUSH_RBX_SUB_20 + BODY, INFO)
    scene.segments |= made.segments()
    sp, caller_sp = Label(), Label()
    length, main = made.starts["Length"], made.starts["Main"] + CALLED
    scene.stack.at(0x13C00).mark(sp).zeros(0x20).d64(0xB1).d64(length).d64(main).zeros(0x20).d64(0xB2)
    scene.stack.d64(scene.return_address)
    scene.caller_frame(caller_sp)
    walk = scene.unwinder(sources=[jit(made)]).walk(named(rip=scene.callee + 5, rsp=sp), STACK)
    assert [frame.ip for frame in walk.frames] == [scene.callee + 5, length, main, scene.return_address]
    assert [frame.trust for frame in walk.frames[1:]] == [Trust.CFI] * 3
    assert jit(made).function_at(made.starts["Main"] - 1) is None


def test_managed_frames_are_unwound_by_the_runtime_s_data() -> None:
    """A native callee was called by Run's catch block, that by Main, that by native code. rbp is no frame pointer."""
    made = heap()
    scene = Scene(BODY)
    scene.segments |= made.segments()
    sp, caller_sp = Label(), Label()
    catch, main = made.starts["Run"] + len(CODE) + CALLED, made.starts["Main"] + CALLED
    scene.stack.at(0x13C00).mark(sp).d64(catch).zeros(0x20).d64(0xB1).d64(main).zeros(0x20).d64(0xB2)
    scene.stack.d64(scene.return_address)
    scene.caller_frame(caller_sp)
    code = jit(made)
    walk = scene.unwinder(sources=[code]).walk(named(rip=scene.callee, rsp=sp, rbp=0x5), STACK)
    assert [frame.ip for frame in walk.frames] == [scene.callee, catch, main, scene.return_address]
    assert [frame.trust for frame in walk.frames[1:]] == [Trust.CFI] * 3
    assert [gpr(walk, at, "rbx") for at in (2, 3)] == [0xB1, 0xB2]
    assert [walk.frames[at].note for at in (2, 3)] == ["", ""]  # their names say where they are from
