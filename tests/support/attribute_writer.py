# SPDX-License-Identifier: Apache-2.0
"""Writes metadata with custom attributes on methods and types (ECMA-335, II.22.10)."""

from __future__ import annotations

import struct

from tests.support.metadata_writer import MetadataWriter, managed_image
from throwstack.core.memory import memory_of
from throwstack.managed.metadata import Metadata

BASE = 0x10000000
ON_METHOD, ON_TYPE = 0, 3
SERVICES = "System.Runtime.CompilerServices"


class Attributes:
    """Metadata with attributes of other modules' classes on methods and types."""

    def __init__(self) -> None:
        self.writer = MetadataWriter()
        self.rows: list[tuple[int, int, int]] = []
        self._constructors: list[bytes] = []

    def add(self, parent: int, tag: int, name: str, namespace: str, text: str = "") -> None:
        """Put an attribute on row `parent` of MethodDef (tag 0) or TypeDef (3); `text` is its argument."""
        reference = self.writer.type_ref(name, namespace)
        self._constructors.append(struct.pack("<HHH", reference << 3 | 1, 0, 0))
        value = b"\1\0" + bytes([len(text)]) + text.encode() + b"\0\0"
        self.rows.append((parent << 5 | tag, len(self._constructors) << 3 | 3, self.writer.blob(value)))

    def metadata(self) -> Metadata:
        """Return the metadata, read back."""
        self.writer.other_rows[0x0A] = 6, b"".join(self._constructors)
        self.writer.other_rows[0x0C] = 6, b"".join(struct.pack("<HHH", *row) for row in sorted(self.rows))
        found = Metadata.of_image(memory_of({BASE: managed_image(self.writer.build()).mapped()}), BASE)
        assert found is not None
        return found
