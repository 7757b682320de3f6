# SPDX-License-Identifier: Apache-2.0
"""Mutants of managed images and of JIT-compiled code against what gives names and frames to .NET methods."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.fuzz.engine import Attack, Family
from tests.fuzz.ground import Shot
from tests.fuzz.mutate import edit, mutate
from tests.support import ngen_image, ready_to_run_image
from tests.support.jit_memory import HEAP, JitHeap, MethodNames
from tests.support.metadata_writer import METADATA_RVA, MetadataWriter, class_of, managed_image, signature
from throwstack.core.memory import memory_of
from throwstack.images.image import Image
from throwstack.images.modules import Module
from throwstack.managed.gc_info_x86 import decode_gc_header, frame_of
from throwstack.managed.jit_code import JitCode
from throwstack.managed.jit_code_x86 import JitCodeX86
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.precompiled import PrecompiledCode

_BASE = 0x10000000
_UNWIND = bytes.fromhex("01050200 05320130")
_CODE = b"\x53\x48\x83\xec\x20\xff\xd0" + b"\x90" * 40


def _metadata() -> Attack:
    writer = MetadataWriter()
    outer = writer.type_def("Orders`1", "Shop", generics=("T",))
    spec = writer.type_spec(b"\x15" + class_of(2) + b"\1\x0e")
    writer.method("Find", signature(b"\x13\0", b"\x1d\x1e\0", class_of(spec, 27), generics=1), ("a", "b"), ("U",))
    writer.type_def("Line", inside=outer)
    writer.method("Add", signature(b"\x14\x08\2\0\0", b"\x1b\0\1\1\x0e"), ("cells", "callback"))
    image = managed_image(writer.build(), base=_BASE).mapped()
    start = METADATA_RVA - 72

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        part = mutate(rng, image[start : start + 0x400], keeps_size=True)
        shot.note("metadata", image[start : start + 0x400], part)
        memory = memory_of({_BASE: image[:start] + part + image[start + 0x400 :]})
        try:
            found = Metadata.of_image(memory, _BASE)
        except MetadataError as error:
            yield str(error)
            return
        if found is None:
            return
        for row in range(5):
            for ask in (found.full_method_name, found.parameters, found.type_name):
                try:
                    yield ask(row)
                except MetadataError as error:
                    yield str(error)

    return attack


def _precompiled() -> Attack:
    places = {
        "ReadyToRun": (
            ready_to_run_image.image(cold=[(6, 0)]),
            ready_to_run_image.BASE,
            ready_to_run_image.HEADER,
            0x1400,
        ),
        "NGEN x64": (ngen_image.image(is_x86=False), ngen_image.BASE, ngen_image.HEADER, 0x3600),
        "NGEN x86": (ngen_image.image(is_x86=True), ngen_image.BASE, ngen_image.HEADER, 0x3600),
    }
    rvas = [*range(ngen_image.HOT, ngen_image.HOT + 0x180, 0x30), ngen_image.UNPROFILED, ngen_image.COLD + 0x50]

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        kind = rng.choice(list(places))
        image, base, start, size = places[kind]
        data = bytearray(image)
        used = [at for at in range(start, start + size, 16) if any(image[at : at + 16])]
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            at = rng.choice(used)
            change = edit(rng, bytes(data[at : at + 16]), [base + place for place in used[:8]])
            data[at + change.at : at + change.at + len(change.data)] = change.data
            shot.changes.append(f"{kind} {at + change.at:#x}: {change.data.hex()} {change.how}")
        memory = memory_of({base: bytes(data)})
        code = PrecompiledCode(memory)
        made = Image(Module("made.dll", "", base, len(data)), memory)
        for rva in rvas:
            yield str(code.method_at(base, rva))
            yield str(code.frame_data(made, rva))
        yield code.reason(base)

    return attack


def _jit_code() -> Attack:
    heap = JitHeap()
    for name in ("Main", "Run", "Last"):
        heap.method(name, [(_CODE, _UNWIND)] * (2 if name == "Run" else 1))
    seeds = heap.segments()

    def attack(rng: random.Random, shot: Shot) -> Iterator[str]:
        segments = {}
        for at, data in seeds.items():
            segments[at] = mutate(rng, data, keeps_size=True) if rng.random() < 0.7 else data
            shot.note(f"{at:#x}", data, segments[at])
        memory = memory_of(segments)
        for kind in (JitCode, JitCodeX86):
            code = kind(memory, MethodNames(heap.descs))
            for start in (*heap.starts.values(), HEAP + rng.randrange(0x400)):
                yield str(code.function_at(start + 7))
        info = mutate(rng, ngen_image.GC_INFO)
        header = decode_gc_header(memory_of({_BASE: info}), _BASE)
        yield str(header if header is None else frame_of(header))

    return attack


FAMILIES = [
    Family("managed metadata", _metadata),
    Family("precompiled managed code", _precompiled),
    Family("JIT-compiled code", _jit_code),
]
