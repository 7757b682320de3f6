# SPDX-License-Identifier: Apache-2.0
"""Writes a ReadyToRun image with a few methods (dotnet/runtime, docs/design/coreclr/botr/readytorun-format.md)."""

from __future__ import annotations

import struct

from tests.support import native_format_writer as write
from tests.support.metadata_writer import MetadataWriter, compressed, managed_image, signature
from tests.support.pe_writer import READ_ONLY, X64, Section

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
