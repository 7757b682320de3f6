# SPDX-License-Identifier: Apache-2.0
"""The runtime's contract: what it says, and what a hostile one may say."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pe_writer import DATA, X64, Pe, Section
from throwstack.core.memory import MemoryUnreadable, memory_of
from throwstack.images.image import Image
from throwstack.images.modules import Module
from throwstack.managed.contract import Contract, contract_of, parse_contract, read_contract
from throwstack.managed.runtime_memory import StructureError

AT, JSON_AT, WORDS_AT = 0x10000, 0x20000, 0x30000


def laid_out(
    text: bytes, *words: int, size: int = 8, magic: bytes = b"DNCCDAC\0", claimed: int | None = None
) -> Contract:
    """Lay out the descriptor of a runtime, with its JSON and auxiliary words, and read it."""
    pointer = "Q" if size == 8 else "I"
    length = len(text) if claimed is None else claimed
    head = magic + struct.pack(
        f"<II{pointer}II{pointer}", 1 if size == 8 else 3, length, JSON_AT, len(words), 0, WORDS_AT
    )
    memory = memory_of({AT: head, JSON_AT: text, WORDS_AT: struct.pack(f"<{len(words)}{pointer}", *words)})
    return read_contract(memory, AT)


@pytest.mark.parametrize("size", [4, 8])
def test_a_contract_has_offsets_sizes_constants_and_variables(size: int) -> None:
    said = {
        "version": 0,
        "types": {"Thread": {"!": 640, "OSId": 304, "LastThrownObject": [344, "GCHandle"]}},
        "globals": {"Bits": ["0xc", "uint8"], "Store": [[1], "pointer"], "RID": ["win-x64", "string"], "Plain": 7},
    }
    contract = laid_out(json.dumps(said).encode(), 0, 0x12340, size=size)
    assert (contract.pointer_size, contract.size("Thread")) == (size, 640)
    assert (contract.offset("Thread", "OSId"), contract.offset("Thread", "LastThrownObject")) == (304, 344)
    assert contract.globals == {"Bits": 12, "Store": 0x12340, "Plain": 7}
    with pytest.raises(StructureError, match=r"has no field Thread\.TEB"):
        contract.offset("Thread", "TEB")
    with pytest.raises(StructureError, match="no size of Module"):
        contract.size("Module")


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"[" * 100_000,
        b'{"types": ' + b'{"a":' * 50_000,
        b'{"types": {"Thread": {"OSId": ' + b"9" * 100_000 + b"}}}",
        b"\xff\xfe",
        b"",
    ],
)
def test_what_is_no_json_is_an_error_and_no_hang(text: bytes) -> None:
    with pytest.raises(StructureError, match="no JSON"):
        parse_contract(text, 8, [])


@pytest.mark.parametrize(
    "members",
    [
        {"OSId": -4},
        {"OSId": 1 << 20},
        {"OSId": True},
        {"OSId": 1.5},
        {"OSId": "8"},
        {"OSId": []},
        {"OSId": [[1]]},
        [],
        5,
    ],
)
def test_an_offset_that_no_structure_has_is_left_out(members: object) -> None:
    contract = parse_contract(json.dumps({"types": {"Thread": members}}).encode(), 8, [])
    assert not contract.fields["Thread"]


@pytest.mark.parametrize(
    "value", [[[9], "pointer"], [[True], "pointer"], [[], "pointer"], ["x", "uint8"], None, {}, []]
)
def test_a_global_that_means_nothing_is_left_out(value: object) -> None:
    assert parse_contract(json.dumps({"globals": {"Store": value}}).encode(), 8, [1, 2]).globals == {}


@pytest.mark.parametrize("lost", ["nothing", "exports", "exports and data"])
def test_where_the_list_of_exports_is_lost_the_contract_is_found_by_its_mark_among_the_variables(lost: str) -> None:
    base = 0x140000000
    text = b'{"types": {"Thread": {"OSId": 304}}}'
    head = b"DNCCDAC\0" + struct.pack("<IIQIIQ", 1, len(text), base + 0x1100, 0, 0, base + 0x1000)
    variables = Section(".data", 0x1000, bytes(0x40) + head.ljust(0xC0, b"\0") + text, DATA)
    pe = Pe(X64, base, sections=[variables], exports=[("DotNetRuntimeContractDescriptor", 0x1040)])
    pages = {base + at: pe.mapped()[at : at + 0x1000] for at in range(0, pe.size, 0x1000)}
    for at in {"nothing": (), "exports": (0x2000,), "exports and data": (0x1000, 0x2000)}[lost]:
        del pages[base + at]
    contract = contract_of(Image(Module("shop.exe", "", base, pe.size), memory_of(pages)))
    assert (contract is None) == ("data" in lost)
    assert contract is None or contract.offset("Thread", "OSId") == 304


def test_a_descriptor_with_another_mark_or_an_absurd_size_is_none() -> None:
    with pytest.raises(StructureError, match="mark"):
        laid_out(b"{}", magic=b"DNCCDAC!")
    with pytest.raises(StructureError, match="larger than any"):
        laid_out(b"{}", claimed=1 << 30)
    with pytest.raises(MemoryUnreadable):
        laid_out(b"{}", claimed=0x1001)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["types", "globals", "Thread", "OSId", "!"]), inner, max_size=3)
        ),
        max_leaves=20,
    )
)
def test_any_json_gives_a_contract_of_small_offsets(said: object) -> None:
    try:
        contract = parse_contract(json.dumps(said).encode(), 8, [1])
    except StructureError:
        return
    assert all(0 <= at < 1 << 16 for members in contract.fields.values() for at in members.values())
    assert all(isinstance(value, int) for value in contract.globals.values())
