# SPDX-License-Identifier: Apache-2.0
"""Layouts of a runtime's structures: figures only order the search where there is no contract."""

from __future__ import annotations

import pytest

from tests.support import managed_heap
from tests.support.managed_heap import APP, STACK, ForgedRuntime, Style
from tests.support.managed_layouts import LAYOUTS, contract_json
from throwstack.core.registers import Arch
from throwstack.managed.contract import Contract
from throwstack.managed.runtime_layout import ChunkForm, guessed_layout, layout_of_contract
from throwstack.managed.runtime_memory import StructureError
from throwstack.managed.runtime_module import RuntimeFamily


@pytest.mark.parametrize("style", [Style.ABSOLUTE, Style.RELATIVE])
@pytest.mark.parametrize("arch", Arch)
def test_members_that_are_elsewhere_are_found(style: Style, arch: Arch, monkeypatch: pytest.MonkeyPatch) -> None:
    size = arch.pointer_size
    known = LAYOUTS[size]
    moved = {
        **known,
        "eeclass": known["eeclass"] + size,
        "class_table": 0,
        "class_fields": 5 * size,
        "class_chunks": 6 * size,
        "id": known["id"] + 0x40,
        "teb": known["teb"] - 0x20,
        "exposed": known["id"] + 0x50,
        "thrown": known["id"] + 0x90,
    }
    monkeypatch.setitem(managed_heap.LAYOUTS, size, moved)
    process = ForgedRuntime(style, arch)
    stack = process.trace((APP, STACK, process.types["Shop.Program"].methods["Main"], 0))
    process.thread(0x14, process.exception("Shop.OrderException", "no stock", _stackTrace=stack), "worker")
    runtime = process.runtime()
    found = runtime.exception_of(0x14)
    assert found is not None
    assert (found.type_name, found.message, found.reasons) == ("Shop.OrderException", "no stock", ())
    assert [frame.method.name for frame in found.stack] == ["Shop.Program.Main"]
    assert runtime.thread_name(0x14) == "worker"


def contract_without(type_name: str, member: str) -> Contract:
    """Return a forged process's contract without a member of a type."""
    types = contract_json(8)["types"]
    assert isinstance(types, dict)
    fields = {name: dict(members) for name, members in types.items()}
    sizes = {name: members.pop("!") for name, members in fields.items() if "!" in members}
    fields.get(type_name, {}).pop(member, None)
    return Contract(8, fields, sizes, {"MethodDescTokenRemainderBitCount": 12, "MethodDescAlignment": 8})


def test_a_contract_is_exact() -> None:
    layout = layout_of_contract(contract_without("", ""))
    assert layout.chunks == (ChunkForm(0x18, 0x12, 2, 8, 12),)
    assert (layout.eeclass, layout.has_wide_token, layout.method_name) == (0x28, True, 0x20)


@pytest.mark.parametrize(
    ("type_name", "member"),
    [("MethodTable", "Module"), ("EEClass", "MethodDescChunk"), ("MethodDescChunk", "FlagsAndTokenRange")],
)
def test_a_contract_without_a_needed_member_is_not_used(type_name: str, member: str) -> None:
    with pytest.raises(StructureError, match=rf"no field {type_name}\.{member}"):
        layout_of_contract(contract_without(type_name, member))


def test_only_dotnet_framework_needs_proof() -> None:
    assert [guessed_layout(8, family).needs_proof for family in RuntimeFamily] == [False, True, True]
