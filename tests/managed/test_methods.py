# SPDX-License-Identifier: Apache-2.0
"""Methods by their MethodDesc: those of metadata, and those that were made at run time."""

from __future__ import annotations

import pytest

from tests.support.managed_heap import APP, STACK, ForgedRuntime, Style
from throwstack.core.registers import Arch

EVERY = pytest.mark.parametrize(("style", "arch"), [(style, arch) for style in Style for arch in Arch])
INTERNAL = b"\x21"


@EVERY
def test_a_method_has_its_name_parameters_type_module_and_token(style: Style, arch: Arch) -> None:
    process = ForgedRuntime(style, arch)
    method = process.runtime().methods.at(process.types["Shop.Program"].methods["Run"])
    assert method is not None
    assert (method.name, method.parameters) == ("Shop.Program.Run", "(String name, Int32 count)")
    assert (method.type_name, method.module, method.token) == ("Shop.Program", "shop.dll", 2)


@pytest.mark.parametrize("arch", Arch)
def test_the_signature_of_a_dynamic_method_has_classes_by_their_address(arch: Arch) -> None:
    process = ForgedRuntime(Style.ABSOLUTE, arch)
    order = process.types["Shop.OrderException"].method_table.to_bytes(process.size, "little")
    desc = process.dynamic_method("lambda_method", b"\0\2\x01" + INTERNAL + order + b"\x1d" + INTERNAL + order)
    method = process.runtime().methods.at(desc)
    assert method is not None
    assert (method.name, method.parameters) == ("lambda_method", "(OrderException, OrderException[])")
    assert method.is_dynamic


@pytest.mark.parametrize(
    "data", [b"\0\1\1\x21", b"\0\1\1\x21" + bytes(8), b"\0\1\1\x21" + b"\xff" * 8, b"\0\1\1\x12\4"]
)
def test_a_dynamic_method_whose_signature_cannot_be_read_has_a_name_and_a_reason(data: bytes) -> None:
    process = ForgedRuntime(Style.ABSOLUTE)
    method = process.runtime().methods.at(process.dynamic_method("lambda_method", data))
    assert method is not None
    assert (method.name, method.parameters) == ("lambda_method", "")
    assert method.reason.startswith("parameters not readable")


def test_a_method_of_absent_metadata_is_genuine_and_has_a_reason() -> None:
    process = ForgedRuntime(Style.ABSOLUTE)
    for page in [page for page in process.pages if APP <= page < APP + 0x100000]:
        del process.pages[page]
    method = process.runtime().methods.at(process.types["Shop.Program"].methods["Run"])
    assert method is not None
    assert (method.name, bool(method.reason)) == ("", True)


@pytest.mark.parametrize("address", [0, 1, STACK, 0xFFFFFFFFFFFFFFF8])
def test_what_is_no_method_desc_is_no_method(address: int) -> None:
    assert ForgedRuntime().runtime().methods.at(address) is None


def test_a_method_desc_of_a_chunk_of_another_type_is_no_method() -> None:
    """Its token belongs to another type than that of the MethodTable which the chunk names."""
    process = ForgedRuntime(Style.ABSOLUTE)
    desc = process.types["Shop.Program"].methods["Main"]
    process.word(desc - 0x18, process.types["Shop.OrderException"].method_table)
    assert process.runtime().methods.at(desc) is None
