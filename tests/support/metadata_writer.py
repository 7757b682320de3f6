# SPDX-License-Identifier: Apache-2.0
"""Writes metadata of managed images (ECMA-335, II.22 and II.24), and images that have it.

Types, methods, fields and parameters are given in the order of their rows, by name. What the writer knows of the tables
is only what it writes: rows of any other table are given as bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.support.pe_writer import READ_ONLY, X86, Pe, Section

CLI_RVA = 0x2000
"""Where `managed_image` puts the CLI header; the metadata follow it."""
METADATA_RVA = CLI_RVA + 72
STRING, INT32, OBJECT, VOID = b"\x0e", b"\x08", b"\x1c", b"\x01"


def compressed(number: int) -> bytes:
    """Return a compressed unsigned integer (II.23.2)."""
    if number < 0x80:
        return bytes([number])
    return struct.pack(">H", number | 0x8000) if number < 0x4000 else struct.pack(">I", number | 0xC0000000)


def signature(*parameters: bytes, returns: bytes = VOID, generics: int = 0) -> bytes:
    """Return a method's signature."""
    head = b"\x30" + compressed(generics) if generics else b"\x20"
    return head + compressed(len(parameters)) + returns + b"".join(parameters)


def class_of(row: int, table: int = 2) -> bytes:
    """Return the type in row `row` of TypeDef (2), TypeRef (1) or TypeSpec (27)."""
    return b"\x12" + compressed(row << 2 | {2: 0, 1: 1, 27: 2}[table])


@dataclass
class MetadataWriter:
    """Metadata being written. `wide_heaps` are the flags of heaps with 4-byte offsets: 1 strings, 2 GUIDs, 4 blobs.

    `other_rows` are rows of further tables, all bytes of a table's rows together, with the size of a row.
    """

    wide_heaps: int = 0
    other_rows: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    module: str = "app.dll"

    def __post_init__(self) -> None:
        self._strings = bytearray(b"\0")
        self._blobs = bytearray(b"\0")
        self._type_refs: list[tuple[int, int]] = []
        self._types: list[tuple[int, int, int, int]] = []
        self._methods: list[tuple[int, int, int]] = []
        self._fields: list[int] = []
        self._params: list[tuple[int, int]] = []
        self._nested: list[tuple[int, int]] = []
        self._generics: list[tuple[int, int, int]] = []
        self._specs: list[int] = []
        self._module = self.text(self.module)
        self.type_def("<Module>")

    def text(self, text: str) -> int:
        """Put a string into #Strings, and return its offset."""
        self._strings += text.encode() + b"\0"
        return len(self._strings) - len(text.encode()) - 1

    def blob(self, data: bytes) -> int:
        """Put bytes into #Blob, and return their offset."""
        at = len(self._blobs)
        self._blobs += compressed(len(data)) + data
        return at

    def type_def(self, name: str, namespace: str = "", *, inside: int = 0, generics: tuple[str, ...] = ()) -> int:
        """Add a type, nested in the type `inside` if that is not 0, and return its row."""
        first = len(self._fields) + 1, len(self._methods) + 1
        self._types.append((self.text(name), self.text(namespace) if namespace else 0, *first))
        row = len(self._types)
        if inside:
            self._nested.append((row, inside))
        self._generics += [(number, row << 1, self.text(given)) for number, given in enumerate(generics)]
        return row

    def type_ref(self, name: str, namespace: str = "") -> int:
        """Add a reference to a type of another module, and return its row."""
        self._type_refs.append((self.text(name), self.text(namespace)))
        return len(self._type_refs)

    def type_spec(self, data: bytes) -> int:
        """Add a type given by its signature, and return its row."""
        self._specs.append(self.blob(data))
        return len(self._specs)

    def method(
        self,
        name: str,
        data: bytes = signature(),
        parameters: tuple[str | tuple[int, str], ...] = (),
        generics: tuple[str, ...] = (),
    ) -> int:
        """Add a method with the signature `data` to the last type, and return its row.

        A parameter is its name, or its number (0 is the return value) and its name.
        """
        self._methods.append((self.text(name), self.blob(data), len(self._params) + 1))
        row = len(self._methods)
        for number, given in enumerate(parameters, 1):
            sequence, text = (number, given) if isinstance(given, str) else given
            self._params.append((sequence, self.text(text)))
        self._generics += [(number, row << 1 | 1, self.text(given)) for number, given in enumerate(generics)]
        return row

    def field(self, name: str) -> int:
        """Add a field to the last type, and return its row."""
        self._fields.append(self.text(name))
        return len(self._fields)

    def counts(self) -> dict[int, int]:
        """Return how many rows each table has."""
        lists: dict[int, list[object]] = {
            0: [0],
            1: [*self._type_refs],
            2: [*self._types],
            4: [*self._fields],
            6: [*self._methods],
            8: [*self._params],
            0x1B: [*self._specs],
            0x29: [*self._nested],
            0x2A: [*self._generics],
        }
        counts = {table: len(rows) for table, rows in lists.items()}
        for table, (size, rows) in self.other_rows.items():
            counts[table] = counts.get(table, 0) + len(rows) // size
        return {table: count for table, count in counts.items() if count}

    def build(self) -> bytes:
        """Return the metadata, from their root on."""
        streams = {
            "#~": self.tables(),
            "#Strings": bytes(self._strings),
            "#Blob": bytes(self._blobs),
            "#GUID": bytes(16),
        }
        version = b"v4.0.30319\0\0"
        head = b"BSJB" + struct.pack("<HHII", 1, 1, 0, len(version)) + version + struct.pack("<HH", 0, len(streams))
        names = {name: name.encode().ljust((len(name) + 4) // 4 * 4, b"\0") for name in streams}
        at = len(head) + sum(8 + len(name) for name in names.values())
        data = b""
        for name, contents in streams.items():
            head += struct.pack("<II", at, len(contents)) + names[name]
            padded = contents.ljust(-(-len(contents) // 4) * 4, b"\0")
            data += padded
            at += len(padded)
        return head + data

    def tables(self) -> bytes:
        """Return the stream #~."""
        counts = self.counts()

        def index(value: int, *tables: int, bits: int = 0) -> bytes:
            is_wide = max(counts.get(table, 0) for table in tables) >= 1 << (16 - bits)
            return struct.pack("<I" if is_wide else "<H", value)

        def heap(flag: int, value: int) -> bytes:
            return struct.pack("<I" if self.wide_heaps & flag else "<H", value)

        rows: dict[int, bytes] = {
            0: struct.pack("<H", 0) + heap(1, self._module) + 3 * heap(2, 0),
            1: b"".join(
                index(6, 0, 0x1A, 0x23, 1, bits=2) + heap(1, name) + heap(1, namespace)
                for name, namespace in self._type_refs
            ),
            2: b"".join(
                struct.pack("<I", 0)
                + heap(1, name)
                + heap(1, space)
                + index(0, 2, 1, 0x1B, bits=2)
                + index(fields, 4)
                + index(methods, 6)
                for name, space, fields, methods in self._types
            ),
            4: b"".join(struct.pack("<H", 0) + heap(1, name) + heap(4, 0) for name in self._fields),
            6: b"".join(
                struct.pack("<IHH", 0, 0, 0) + heap(1, name) + heap(4, data) + index(first, 8)
                for name, data, first in self._methods
            ),
            8: b"".join(struct.pack("<HH", 0, number) + heap(1, name) for number, name in self._params),
            0x1B: b"".join(heap(4, data) for data in self._specs),
            0x29: b"".join(index(inner, 2) + index(outer, 2) for inner, outer in sorted(self._nested)),
            0x2A: b"".join(
                struct.pack("<HH", number, 0) + index(owner, 2, 6, bits=1) + heap(1, name)
                for number, owner, name in sorted(self._generics, key=lambda row: (row[1], row[0]))
            ),
        }
        for table, (_, data) in self.other_rows.items():
            rows[table] = rows.get(table, b"") + data
        valid = sum(1 << table for table in counts)
        head = struct.pack("<IBBBBQQ", 0, 2, 0, self.wide_heaps, 1, valid, 0)
        head += b"".join(struct.pack("<I", counts[table]) for table in sorted(counts))
        return head + b"".join(rows[table] for table in sorted(counts))


def managed_image(
    metadata: bytes,
    *,
    machine: int = X86,
    base: int = 0x10000000,
    sections: tuple[Section, ...] = (),
    precompiled: tuple[int, int] = (0, 0),
    directories: dict[int, tuple[int, int]] | None = None,
) -> Pe:
    """Return an image with a CLI header at `CLI_RVA` and the metadata after it; `sections` come before or after."""
    header = struct.pack("<IHHIIII", 72, 2, 5, METADATA_RVA, len(metadata), 1, 0x06000001)
    header += bytes(40) + struct.pack("<II", *precompiled)
    text = Section(".cli", CLI_RVA, header + metadata, READ_ONLY)
    ordered = sorted((text, *sections), key=lambda section: section.rva)
    return Pe(machine, base, sections=ordered, directories={14: (CLI_RVA, 72), **(directories or {})})
