# SPDX-License-Identifier: Apache-2.0
"""Forged PE images as other people's parsers read them, and the symbol files that belong to them."""

from __future__ import annotations

from pathlib import Path

import pefile
import pytest
from volatility3.framework import contexts
from volatility3.framework.symbols import intermed

from tests.forge.code import CodeError
from tests.forge.images import ImageBuilder
from tests.forge.pe_format import AMD64, I386
from tests.forge.symbols import Pdb, write_isf

PDB = Pdb("sample.pdb", "0123456789ABCDEF0011223344556677", 3)
BASE = {I386: 0x10000000, AMD64: 0x7FF812340000}


def sample(machine: int) -> ImageBuilder:
    base = BASE[machine]
    image = ImageBuilder("sample.dll", base, 0x3000, 0x2000, 0x1000, machine, PDB, entry=base + 0x1500)
    image.code(base + 0x1234, b"\x33\xc0\xc3")
    image.name_function("Second", base + 0x2000, exported=True)
    image.name_function("First", base + 0x1234, exported=True)
    image.name_function("Hidden", base + 0x1800)
    image.data(base + 0x5800, b"constant")
    return image


def as_file(data: bytes) -> pefile.PE:
    """Parse an image as mapped: its sections are in the file where they are in memory."""
    return pefile.PE(data=data)


@pytest.mark.parametrize("machine", [I386, AMD64])
def test_headers_are_those_of_an_image_at_its_base(machine: int) -> None:
    data = sample(machine).build()
    pe = as_file(data)
    assert pe.FILE_HEADER.Machine == machine
    assert pe.OPTIONAL_HEADER.Magic == (0x20B if machine == AMD64 else 0x10B)
    assert pe.OPTIONAL_HEADER.ImageBase == BASE[machine]
    assert pe.OPTIONAL_HEADER.SizeOfImage == len(data)
    assert pe.OPTIONAL_HEADER.AddressOfEntryPoint == 0x1500
    assert pe.is_dll()
    sections = {section.Name.rstrip(b"\0"): section for section in pe.sections}
    assert sections[b".text"].VirtualAddress == 0x1000
    assert sections[b".text"].IMAGE_SCN_MEM_EXECUTE
    assert not sections[b".rdata"].IMAGE_SCN_MEM_EXECUTE
    assert sections[b".data"].IMAGE_SCN_MEM_WRITE
    ends = [section.VirtualAddress + section.Misc_VirtualSize for section in pe.sections]
    assert max(ends) <= len(data)
    # An image with so little in it is mostly zeros, which pefile finds worth a word.
    assert [warning for warning in pe.get_warnings() if "Byte 0x00 makes up" not in warning] == []


@pytest.mark.parametrize("machine", [I386, AMD64])
def test_exports_and_code_are_where_they_were_put(machine: int) -> None:
    data = sample(machine).build()
    exports = as_file(data).DIRECTORY_ENTRY_EXPORT
    assert exports.name == b"sample.dll"
    assert {(e.name, e.address, e.ordinal) for e in exports.symbols} == {(b"First", 0x1234, 1), (b"Second", 0x2000, 2)}
    assert data[0x1233:0x1238] == b"\xcc\x33\xc0\xc3\xcc"
    assert data[0x5800:0x5808] == b"constant"


@pytest.mark.parametrize("machine", [I386, AMD64])
def test_debug_record_carries_the_pdbs_identity(machine: int) -> None:
    (entry,) = as_file(sample(machine).build()).DIRECTORY_ENTRY_DEBUG
    assert entry.struct.Type == pefile.DEBUG_TYPE["IMAGE_DEBUG_TYPE_CODEVIEW"]
    record = entry.entry
    assert record.CvSignature == b"RSDS"
    assert record.PdbFileName.rstrip(b"\0") == b"sample.pdb"
    assert record.Age == 3
    tail = bytes((record.Signature_Data4, record.Signature_Data5)) + record.Signature_Data6
    guid = f"{record.Signature_Data1:08X}{record.Signature_Data2:04X}{record.Signature_Data3:04X}"
    assert (guid + tail.hex().upper())[:16] == PDB.guid[:16]


def test_import_slots_hold_their_targets() -> None:
    image = sample(AMD64)
    first, again, second = image.slot(0x7FFB00001000), image.slot(0x7FFB00001000), image.slot(0x7FFB00002000)
    assert first == again != second
    data = image.build()
    for slot, target in ((first, 0x7FFB00001000), (second, 0x7FFB00002000)):
        assert int.from_bytes(data[slot - image.base :][:8], "little") == target


def test_code_that_overlaps_or_lies_outside_is_refused() -> None:
    image = sample(I386)
    image.code(BASE[I386] + 0x1235, b"\x90")
    with pytest.raises(CodeError, match="overlaps"):
        image.build()
    with pytest.raises(CodeError, match="outside"):
        image.code(BASE[I386] + 0x4000, b"\x90")


@pytest.mark.parametrize(("offset", "name"), [(0x1234, "First"), (0x17FF, "First+0x5cb"), (0x1900, "Second")])
def test_an_export_table_names_by_the_nearest_export(offset: int, name: str) -> None:
    image = sample(I386)
    image.exports["Second"] = BASE[I386] + 0x1900
    assert image.nearest(BASE[I386] + offset) == f"sample!{name}"


def test_an_isf_knows_what_is_not_exported() -> None:
    image = sample(I386)
    image.has_isf = True
    assert image.nearest(BASE[I386] + 0x1900) == "sample!Hidden+0x100"


def test_symbol_file_is_one_that_volatility_accepts_where_it_looks(tmp_path: Path) -> None:
    image = sample(AMD64)
    path = write_isf(tmp_path, PDB, AMD64, image.rvas())
    assert path == tmp_path / "windows" / "sample.pdb" / f"{PDB.guid}-3.json.xz"
    table = intermed.IntermediateSymbolTable(contexts.Context(), "path", "sample", path.as_uri())
    assert {name: table.get_symbol(name).address for name in table.symbols} == {
        "First": 0x1234,
        "Hidden": 0x1800,
        "Second": 0x2000,
    }
    metadata = table.metadata
    assert (metadata.pdb_guid, metadata.pdb_age) == (PDB.guid, 3)
