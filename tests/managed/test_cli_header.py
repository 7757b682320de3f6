# SPDX-License-Identifier: Apache-2.0
"""The CLI header of images that are laid out, and of files in memory."""

from __future__ import annotations

import struct

import pytest

from tests.support.metadata_writer import CLI_RVA, METADATA_RVA, MetadataWriter, managed_image
from tests.support.pe_writer import X64, Pe, Section
from throwstack.core.memory import memory_of
from throwstack.managed.cli_header import CliHeader
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError

BASE = 0x7FF800000000


def written() -> bytes:
    writer = MetadataWriter()
    writer.type_def("Here", "App")
    return writer.build()


def test_an_image_with_a_header() -> None:
    data = managed_image(written(), machine=X64, precompiled=(0x5000, 0x40)).mapped()
    header = CliHeader.read(memory_of({BASE: data}), BASE)
    assert header is not None
    assert (header.metadata[0], header.precompiled, header.flags) == (METADATA_RVA, (0x5000, 0x40), 1)
    assert header.address(CLI_RVA) == BASE + CLI_RVA


def test_a_file_in_memory_has_its_sections_at_their_place_in_the_file() -> None:
    """`.first` has 0x200 bytes in the file and a page in memory, so that RVAs after it are not offsets."""
    pe = managed_image(written(), sections=(Section(".first", 0x1000, b"\xcc"),))
    memory = memory_of({BASE: pe.file()})
    found = Metadata.of_image(memory, BASE, is_flat=True)
    assert found is not None
    assert found.type_name(2) == "App.Here"
    with pytest.raises(MetadataError, match="outside the image"):
        found.header.address(0x90000)


def test_native_images_have_none() -> None:
    native = Pe(X64, sections=[Section(".text", 0x1000, b"\xcc")]).mapped()
    assert CliHeader.read(memory_of({BASE: native}), BASE) is None
    assert CliHeader.read(memory_of({BASE: bytes(0x1000)}), BASE) is None


def test_absent_and_damaged_headers_are_reasons() -> None:
    data = managed_image(written()).mapped()
    with pytest.raises(MetadataError, match="not readable"):
        CliHeader.read(memory_of({}), BASE)
    with pytest.raises(MetadataError, match="not readable"):
        CliHeader.read(memory_of({BASE: data[:CLI_RVA]}), BASE)
    place = data.index(struct.pack("<II", CLI_RVA, 72))
    for rva, size in ((0x7FFFFFFF, 72), (CLI_RVA, 8)):
        changed = data[:place] + struct.pack("<II", rva, size) + data[place + 8 :]
        with pytest.raises(MetadataError):
            CliHeader.read(memory_of({BASE: changed}), BASE)
