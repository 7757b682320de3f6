# SPDX-License-Identifier: Apache-2.0
"""Names in the metadata of images, as the runtime's stack traces print them."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.metadata_writer import (
    INT32,
    METADATA_RVA,
    OBJECT,
    STRING,
    MetadataWriter,
    class_of,
    compressed,
    managed_image,
    signature,
)
from throwstack.core.memory import PAGE_SIZE, Memory, PageSource, memory_of
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.metadata_tables import Table

BASE = 0x10000000
ARRAY, REFERENCE, POINTER, VAR, METHOD_VAR = b"\x1d", b"\x10", b"\x0f", b"\x13", b"\x1e"


def opened(writer: MetadataWriter, function_pointer: str = "IntPtr") -> Metadata:
    memory = memory_of({BASE: managed_image(writer.build()).mapped()})
    found = Metadata.of_image(memory, BASE, function_pointer=function_pointer)
    assert found is not None
    return found


def shop() -> MetadataWriter:
    """namespace Shop { class Orders<T> { class Line { void Add(string name); } U Find<U>(T key, U[] all); } }

    with a field, and a class without a namespace, whose method has no parameters."""
    writer = MetadataWriter()
    writer.method("Global")
    orders = writer.type_def("Orders`1", "Shop", generics=("T",))
    writer.method(
        "Find", signature(VAR + b"\0", ARRAY + METHOD_VAR + b"\0", generics=1), ("key", "all"), generics=("U",)
    )
    writer.field("total")
    writer.type_def("Empty", "Shop")
    writer.type_def("Line", inside=orders, generics=("T",))
    writer.method("Add", signature(STRING), ("name",))
    writer.type_def("Program")
    writer.method("Main")
    return writer


@pytest.mark.parametrize(
    ("row", "name", "parameters"),
    [
        (1, "Global", "()"),
        (2, "Shop.Orders`1.Find", "[U](T key, U[] all)"),
        (3, "Shop.Orders`1.Line.Add", "(String name)"),
        (4, "Program.Main", "()"),
    ],
)
@pytest.mark.parametrize("wide_heaps", [0, 7])
def test_methods_are_named_with_namespace_outer_types_and_parameters(
    row: int, name: str, parameters: str, wide_heaps: int
) -> None:
    writer = shop()
    writer.wide_heaps = wide_heaps
    found = opened(writer)
    assert (found.full_method_name(row), found.parameters(row)) == (name, parameters)


def test_fields_types_and_the_module_are_named() -> None:
    found = opened(shop())
    assert (found.field_name(1), found.type_name(found.owner_of_field(1))) == ("total", "Shop.Orders`1")
    assert (found.module_name, found.count(Table.TYPE_DEF), found.count(Table.EVENT)) == ("app.dll", 5, 0)


def test_tables_with_more_than_65535_rows_have_wide_indexes() -> None:
    """70,000 parameters: each MethodDef's index of its first one has 4 bytes."""
    writer = MetadataWriter(wide_heaps=7)
    writer.type_def("Many")
    for number in range(70):
        writer.method(f"M{number}", signature(*[INT32] * 1000), tuple(f"p{number}_{at}" for at in range(1000)))
    writer.method("Last", signature(STRING), ("last",))
    found = opened(writer)
    assert found.parameters(71) == "(String last)"
    assert found.parameters(70).startswith("(Int32 p69_0, Int32 p69_1, ")


def parameters(
    *types: bytes, names: tuple[str | tuple[int, str], ...] = (), writer: MetadataWriter | None = None
) -> str:
    writer = writer or MetadataWriter()
    writer.type_def("Host", generics=("TKey",))
    row = writer.method("M", signature(*types, generics=1), names, generics=("TResult",))
    return opened(writer).parameters(row).removeprefix("[TResult]")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (b"\x02", "Boolean"),
        (b"\x0d", "Double"),
        (b"\x18", "IntPtr"),
        (b"\x16", "TypedReference"),
        (OBJECT, "Object"),
        (ARRAY + ARRAY + STRING, "String[][]"),
        (REFERENCE + INT32, "Int32&"),
        (POINTER + POINTER + b"\x01", "Void**"),
        (VAR + b"\0", "TKey"),
        (METHOD_VAR + b"\0", "TResult"),
        (b"\x14" + INT32 + b"\2\0\0", "Int32[,]"),
        (b"\x14" + INT32 + b"\1\1\5\1\0", "Int32[*]"),
        (b"\x1f" + compressed(5) + INT32, "Int32"),
        (b"\x1b\0\2\1" + INT32 + STRING, "IntPtr"),
        (b"\x15" + class_of(1, 1) + b"\2" + STRING + INT32, "Dictionary`2"),
        (class_of(1, 27), "Dictionary`2"),
        (class_of(2), "Host"),
        (class_of(2, 1), "pair<int\\,int>"),
    ],
)
def test_the_types_of_parameters_have_reflection_s_short_names(kind: bytes, word: str) -> None:
    writer = MetadataWriter()
    writer.type_ref("Dictionary`2", "System.Collections.Generic")
    writer.type_ref("pair<int,int>")
    writer.type_spec(b"\x15" + class_of(1, 1) + b"\2" + STRING + INT32)
    assert parameters(kind, INT32, names=("first", "second"), writer=writer) == f"({word} first, Int32 second)"


def test_dotnet_8_gives_function_pointers_no_name() -> None:
    writer = MetadataWriter()
    writer.type_def("Host")
    row = writer.method("M", signature(b"\x1b\0\1\1" + STRING), ("callback",))
    assert opened(writer, "").parameters(row) == "( callback)"


def test_a_parameter_s_name_is_found_by_its_number() -> None:
    """The return value has number 0. A compiler may leave out parameters that have no name."""
    assert parameters(INT32, STRING, names=((0, "result"), (2, "text"))) == "(Int32, String text)"


def test_names_are_shown_escaped() -> None:
    writer = MetadataWriter()
    writer.type_def("\u202eevil\x1b")
    writer.method("\nM")
    assert opened(writer).full_method_name(1) == "\\u202eevil\\x1b.\\nM"


def without(source: PageSource, page: int) -> Memory:
    class Lost:
        def page(self, address: int) -> bytes | None:
            return None if address == page else source.page(address)

    return Memory(Lost())


def test_an_absent_page_is_a_reason_and_not_an_empty_name() -> None:
    """The strings begin on the second page of the metadata; the tables are on the first one, and go on to be read."""
    writer = shop()
    writer.text("x" * PAGE_SIZE)
    far = MetadataWriter()
    far.text("x" * PAGE_SIZE)
    far.type_def("Far")
    far.method("Away")
    memory = memory_of({BASE: managed_image(far.build()).mapped()})
    found = Metadata.of_image(without(memory, BASE + (METADATA_RVA & -PAGE_SIZE) + PAGE_SIZE), BASE)
    assert found is not None
    assert found.owner_of_method(1) == 2
    with pytest.raises(MetadataError, match=r"string at .* is not readable"):
        found.full_method_name(1)


@pytest.mark.parametrize("row", [0, -1, 5, 1 << 24])
def test_a_row_that_does_not_exist_is_a_reason(row: int) -> None:
    found = opened(shop())
    for ask in (found.full_method_name, found.parameters, found.owner_of_method):
        with pytest.raises(MetadataError):
            ask(row)


def test_types_nested_in_a_circle_end() -> None:
    writer = MetadataWriter()
    writer.type_def("A", inside=3)
    writer.type_def("B", inside=2)
    with pytest.raises(MetadataError, match="nested too deeply"):
        opened(writer).type_name(2)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(b"", id="cut"),
        pytest.param(ARRAY * 4000 + INT32, id="nested"),
        pytest.param(class_of(1, 27), id="specified by itself"),
        pytest.param(VAR + b"\5", id="no such variable"),
        pytest.param(b"\x14" + INT32 + b"\xdf\xff\xff\xff\0\0", id="dimensions"),
        pytest.param(b"\x99", id="no type"),
    ],
)
def test_a_signature_that_no_compiler_writes_is_a_reason(kind: bytes) -> None:
    writer = MetadataWriter()
    writer.type_spec(class_of(1, 27))
    with pytest.raises(MetadataError):
        parameters(kind, writer=writer)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=4)), min_size=1, max_size=6))
def test_no_change_of_the_bytes_raises_anything_but_the_documented_error(changes: list[tuple[int, bytes]]) -> None:
    image = managed_image(shop().build()).mapped()
    data = bytearray(image)
    for at, new in changes:
        start = METADATA_RVA - 72 + at % (len(image) - METADATA_RVA - 100)
        data[start : start + len(new)] = new
    with suppress(MetadataError):
        found = Metadata.of_image(memory_of({BASE: bytes(data)}), BASE)
        for row in range(1, 6 if found else 1):
            for ask in (found.full_method_name, found.parameters, found.type_name, found.field_name):
                with suppress(MetadataError):
                    assert len(ask(row)) < 1 << 16


def test_a_count_that_the_metadata_cannot_have_is_a_reason() -> None:
    data = shop().build()
    at = data.index(struct.pack("<III", 1, 5, 1))
    damaged = managed_image(data[:at] + struct.pack("<III", 1, 1 << 20, 1) + data[at + 12 :]).mapped()
    with pytest.raises(MetadataError, match="do not fit"):
        Metadata.of_image(memory_of({BASE: damaged}), BASE)
