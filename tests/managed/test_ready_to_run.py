# SPDX-License-Identifier: Apache-2.0
"""Methods of ReadyToRun images, by the RVA of their code."""

from __future__ import annotations

import random
import struct

import pytest

from tests.support import native_format_writer as write
from tests.support.metadata_writer import MetadataWriter, compressed, managed_image, signature
from tests.support.pe_writer import READ_ONLY, X64, Section
from throwstack.core.memory import memory_of
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.ready_to_run import ReadyToRun

BASE, HEADER, BODY = 0x180000000, 0x8000, 0x9000
CODE = 0x20000
INSTANTIATION, CONSTRAINED, OWNER, UPDATE = 4, 0x20, 0x40, 0x80


def function(number: int) -> int:
    """Return the RVA of a function: each has 20h bytes, and there are 10h between them."""
    return CODE + 0x30 * number


def instance(number: int, *parts: bytes) -> bytes:
    return b"".join(parts) + write.unsigned(number << 1)


def image(*, header: dict[str, int] | None = None, cold: list[tuple[int, int]] | None = None) -> bytes:
    """Program.Main has functions 0 and 1 (a funclet), Program.Run has 2, instances of List<T>.Add have 3, 4 and 5."""
    writer = MetadataWriter()
    writer.type_def("Program")
    writer.method("Main")
    writer.method("Abstract")
    writer.method("Run")
    writer.type_def("List`1", generics=("T",))
    writer.method("Add", signature())
    methods = write.array({0: write.unsigned(0 << 1), 2: write.unsigned(2 << 2 | 1)}, 4)
    of_strings = instance(3, bytes([OWNER]), b"\x15\x12\x08\x01\x0e", compressed(4))
    of_canon = instance(4, bytes([OWNER | INSTANTIATION]), b"\x12\x08", compressed(4), b"\x02\x3e\x1d\x08")
    foreign = instance(5, compressed(UPDATE | CONSTRAINED), b"\x03", compressed(1), b"\x3f\x02\x11\x05")
    instances = write.hash_table([[of_strings], [of_canon, foreign]])
    functions = b"".join(struct.pack("<III", function(n), function(n) + 0x20, 0x30000) for n in range(8))
    parts = {102: functions, 103: methods, 109: instances}
    if cold:
        parts[120] = b"".join(struct.pack("<II", *pair) for pair in cold)
    places, body = {}, b""
    for kind, data in parts.items():
        places[kind] = (BODY + len(body), len(data))
        body += data
    given = {"major": 9, "flags": 0, "count": len(places), **(header or {})}
    head = b"RTR\0" + struct.pack("<HHII", given["major"], 1, given["flags"], given["count"])
    head += b"".join(struct.pack("<III", kind, *place) for kind, place in places.items())
    sections = (
        Section(".r2r", HEADER, head, READ_ONLY),
        Section(".data", BODY, body, READ_ONLY),
        Section(".text", CODE, bytes(0x400)),
    )
    return managed_image(
        writer.build(), machine=X64, base=BASE, sections=sections, precompiled=(HEADER, len(head))
    ).mapped()


def opened(data: bytes) -> ReadyToRun:
    memory = memory_of({BASE: data})
    metadata = Metadata.of_image(memory, BASE)
    assert metadata is not None
    return ReadyToRun(memory, metadata.header)


@pytest.mark.parametrize(
    ("number", "rid", "first", "is_instance"),
    [(0, 1, 0, False), (1, 1, 0, False), (2, 3, 2, False), (3, 4, 3, True), (4, 4, 4, True), (5, 0, 5, True)],
)
def test_each_function_belongs_to_a_method(number: int, rid: int, first: int, is_instance: bool) -> None:
    code = opened(image())
    for rva in (function(number), function(number) + 0x1F):
        found = code.method_at(rva)
        assert found is not None
        assert (found.rid, found.start, found.is_instance) == (rid, function(first), is_instance)
        assert found.is_body == (number == first)
    assert code.method_at(function(number) + 0x20) is None
    assert code.is_whole


def test_a_cold_part_belongs_to_its_method() -> None:
    code = opened(image(cold=[(6, 0), (7, 2)]))
    parts = [code.method_at(function(number)) for number in (6, 7)]
    assert [(part.rid, part.start, part.is_body) for part in parts if part] == [
        (1, function(0), False),
        (3, function(2), False),
    ]


def test_code_before_all_functions_has_no_method() -> None:
    assert opened(image()).method_at(CODE - 1) is None


@pytest.mark.parametrize("header", [{"flags": 0x20}, {"count": 0}])
def test_images_without_code_of_their_own_are_refused(header: dict[str, int]) -> None:
    with pytest.raises(MetadataError, match="no ReadyToRun code"):
        opened(image(header=header))


def test_no_bytes_raise_another_error() -> None:
    data = image(cold=[(6, 0)])
    rng = random.Random(13)
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(HEADER, BODY + 0x100)
            changed[at : at + 2] = rng.randbytes(2)
        try:
            code = opened(bytes(changed))
            for number in range(8):
                code.method_at(function(number))
        except MetadataError as reason:
            assert str(reason)  # noqa: PT017
