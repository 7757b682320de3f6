# SPDX-License-Identifier: Apache-2.0
"""The stub through which native code calls managed code on x86, told by its header and its call."""

from __future__ import annotations

import struct

import pytest

from tests.support.managed_code import managed_code
from tests.support.managed_heap import ForgedRuntime, Style
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch
from throwstack.managed.stub_x86 import um_thunk_stub

PAGE, START = 0x18FD000, 0x18FD01C
PROLOGUE = bytes.fromhex("55 89e5 53 83ec08 50")
CALL = bytes.fromhex("8b780c 8b3f 897c2404 ff542404")
CODE = PROLOGUE + b"\x90" * 0x4D + CALL + bytes.fromhex("5f 83c404 5b 5d c20400")
RETURN = START + CODE.index(CALL) + len(CALL)


def stub(references: int = 1, size: int = len(CODE), code: bytes = CODE) -> bytes:
    """Lay out the page of a stub."""
    return (b"\xcc" * 0x10 + struct.pack("<III", references, 0x20000000, size) + code).ljust(0x1000, b"\0")


def test_the_stub_is_known_from_its_begin_to_its_end() -> None:
    memory = memory_of({PAGE: stub()})
    assert [um_thunk_stub(memory, at) for at in (START, RETURN, START + len(CODE) - 1)] == [START] * 3
    assert [um_thunk_stub(memory, at) for at in (START - 1, START + len(CODE))] == [0, 0]


@pytest.mark.parametrize(
    "page",
    [
        stub(references=0),
        stub(references=1 << 20),
        stub(size=0x20),
        stub(size=0x500),
        stub(code=CODE.replace(CALL, b"\x90" * len(CALL))),
        stub(code=CODE.replace(PROLOGUE, b"\x90" * len(PROLOGUE))),
        b"",
    ],
)
def test_other_code_is_none(page: bytes) -> None:
    memory = memory_of({PAGE: page} if page else {})
    assert um_thunk_stub(memory, RETURN) == 0


@pytest.mark.parametrize(("arch", "name"), [(Arch.X86, "<dynamic>!UMThunkStub+0x62"), (Arch.X64, None)])
def test_its_frame_is_named_by_its_kind(arch: Arch, name: str | None) -> None:
    process = ForgedRuntime(Style.ABSOLUTE, arch)
    process.place(PAGE, stub())
    found = managed_code(process).name_outside(RETURN)
    assert (None if found is None else str(found)) == name
