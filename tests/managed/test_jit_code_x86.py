# SPDX-License-Identifier: Apache-2.0
"""JIT-compiled methods of x86, found by the header right before their code."""

from __future__ import annotations

import random
import struct

import pytest

from tests.support.jit_memory import MethodNames, OneRegion
from tests.unwind.x86.assemble import EBP, EDI, ESI, Assembler, ret
from tests.unwind.x86.machine import TEXT
from tests.unwind.x86.written_stack import Stack, walk
from throwstack.core.frames import Trust
from throwstack.core.memory import memory_of
from throwstack.managed.jit_code_x86 import JitCodeX86

HEAP, INFOS, DESCS = 0x4000000, 0x5000000, 0x5100000
FRAME = bytes.fromhex("55 8b ec 57 56") + b"\x90" * 60 + bytes.fromhex("5e 5f 5d c3")
FRAME_INFO = bytes([len(FRAME), 0x80 | 0x01, 0x80 | 0x16, 0xBB, 0xBC, 0xBE, 0xBF, 0x26])
"""0x01 with a prologue of 5 bytes, edi, esi and ebp saved, ebp frame pointer, an epilogue of 4 bytes."""
NO_FRAME = bytes.fromhex("57 56") + b"\x90" * 20 + bytes.fromhex("5e 5f c3")
NO_FRAME_INFO = bytes([len(NO_FRAME), 0x21])
LEAF, LEAF_INFO = b"\x90" * 15 + b"\xc3", bytes([16, 0x01])


class Heap:
    def __init__(self) -> None:
        self.code, self.infos = bytearray(0x80), bytearray(0x10)
        self.starts: dict[str, int] = {}
        self.descs: dict[int, str] = {}

    def method(self, name: str, code: bytes, info: bytes) -> None:
        desc = DESCS + 0x10 * len(self.descs)
        self.descs[desc] = name
        self.code += struct.pack("<IIII", INFOS, 0, INFOS + len(self.infos), desc)
        self.starts[name] = HEAP + len(self.code)
        self.code += code.ljust(-(-len(code) // 8) * 8, b"\0")
        self.infos += info.ljust(0x10, b"\0")

    def segments(self) -> dict[int, bytes]:
        return {HEAP: bytes(self.code), INFOS: bytes(self.infos), DESCS: bytes(0x100)}


@pytest.fixture
def heap() -> Heap:
    made = Heap()
    made.method("Main", FRAME, FRAME_INFO)
    made.method("NoFrame", NO_FRAME, NO_FRAME_INFO)
    made.method("Leaf", LEAF, LEAF_INFO)
    return made


def jit(heap: Heap, regions: OneRegion | None = None) -> JitCodeX86:
    return JitCodeX86(memory_of(heap.segments()), MethodNames(heap.descs), regions)


@pytest.mark.parametrize(
    ("name", "code", "has_ebp"), [("Main", FRAME, True), ("NoFrame", NO_FRAME, False), ("Leaf", LEAF, False)]
)
def test_each_address_of_the_code_leads_to_its_method(heap: Heap, name: str, code: bytes, has_ebp: bool) -> None:
    known = jit(heap)
    start = heap.starts[name]
    for address in range(start, start + len(code)):
        found = jit(heap).function_at(address)
        assert found is not None
        is_in_body = start + 5 <= address <= start + len(code) - 4
        assert (found.name, found.has_frame_pointer, found.entry) == (name, has_ebp and is_in_body, None)
        assert found == known.function_at(address)
    assert known.function_at(start + len(code)) is None
    assert known.function_at(start - 1) is None


def test_a_header_whose_code_does_not_begin_as_it_says_is_refused(heap: Heap) -> None:
    heap.code[heap.starts["Main"] - HEAP] = 0x90
    assert jit(heap).method_at(heap.starts["Main"] + 0x10) is None


def test_only_a_genuine_method_desc_proves_a_method_without_pushes(heap: Heap) -> None:
    assert JitCodeX86(memory_of(heap.segments())).method_at(heap.starts["Leaf"]) is None
    heap.descs.clear()
    assert jit(heap).method_at(heap.starts["Leaf"]) is None
    assert jit(heap).method_at(heap.starts["NoFrame"]) is not None


def test_regions_that_are_no_code_are_not_searched(heap: Heap) -> None:
    start = heap.starts["Main"]
    assert jit(heap, OneRegion(HEAP, HEAP + 0x1000, is_executable=False)).method_at(start) is None
    assert jit(heap, OneRegion(start, HEAP + 0x1000)).method_at(start) is None
    assert jit(heap, OneRegion(HEAP, HEAP + 0x1000)).method_at(start) is not None


@pytest.mark.parametrize("has_symbols", [True, False])
def test_managed_frames_are_unwound_by_their_gc_info(has_symbols: bool) -> None:
    """A callee was called by NoFrame, that by a catch block of Main, that by native code.

    The dispatcher enters the catch block: no instruction of Main leads there. NoFrame has two words of locals, and its
    ebp is Main's.
    """
    native = Assembler(TEXT)
    native.label("BaseThreadStart").emit("33ed ffd0").label("back in start").emit("cc").align()
    native.label("callee").emit(ret()).align()
    made = Heap()
    main = bytes.fromhex("55 8b ec 57 56 eb 04 90 90 ff d0 5e 5f 5d c3")
    made.method("Main", main, bytes([len(main), 0x80 | 0x01, 0x80 | 0x16, 0xBB, 0xBC, 0xBE, 0xBF, 0x26]))
    leaf = bytes.fromhex("57 56 83 ec 08 ff d0 83 c4 08 5e 5f c3")
    made.method("NoFrame", leaf, bytes([len(leaf), 0x80 | 0x21, 0x80 | 0x02, 0x80 | 0x16, 0x28]))
    back_in_leaf, back_in_catch = made.starts["NoFrame"] + 7, made.starts["Main"] + 11
    stack = Stack(
        *("esp", back_in_leaf, "leaf", 0x1111, 0x2222, 0x51, 0xD1, back_in_catch),
        *("main", 0x3333, 0x52, 0xD2, "ebp", 0, native.labels["back in start"], 0, 0, 0),
    )
    registers = {
        "eip": native.labels["callee"],
        "esp": stack["esp"],
        "ebp": stack["ebp"],
        "esi": 5,
        "edi": 0xD,
        "ebx": 0xB,
    }
    found = walk(
        native,
        stack,
        registers,
        has_symbols=has_symbols,
        segments=made.segments(),
        source=lambda memory: JitCodeX86(memory, MethodNames(made.descs)),
    )
    assert [frame.ip for frame in found.frames] == [
        *(native.labels["callee"], back_in_leaf, back_in_catch, native.labels["back in start"]),
    ]
    assert Trust.SCAN not in {frame.trust for frame in found.frames}
    saved = [[frame.registers.gpr[number] for number in (ESI, EDI, EBP)] for frame in found.frames[2:]]
    assert saved == [[0x51, 0xD1, stack["ebp"]], [0x52, 0xD2, 0]]


def test_no_bytes_raise_an_error(heap: Heap) -> None:
    rng = random.Random(5)
    for _ in range(200):
        segments = {at: bytearray(data) for at, data in heap.segments().items()}
        for data in segments.values():
            for _ in range(rng.randrange(4)):
                at = rng.randrange(len(data) - 4)
                data[at : at + 4] = rng.randbytes(4)
        known = JitCodeX86(memory_of({at: bytes(data) for at, data in segments.items()}), MethodNames(heap.descs))
        for start in heap.starts.values():
            found = known.method_at(start + 4)
            assert found is None or found.start <= start + 4 < found.end
