# SPDX-License-Identifier: Apache-2.0
"""Generated code with unwind data of its own: ntdll's list of dynamic function tables, whole and damaged."""

from __future__ import annotations

import struct

import pytest

from tests.forge.stacks import Label
from tests.unwind.x64 import assembler as asm
from tests.unwind.x64.assembler import RBX, ImageBuilder
from tests.unwind.x64.scene import BODY, PUSH_RBX_SUB_20, STACK, Scene, gpr, named
from throwstack.core.frames import Trust
from throwstack.core.memory import Memory, memory_of
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap
from throwstack.names.symbols import Symbols
from throwstack.unwind.code_outside import OutsideFunction
from throwstack.unwind.x64 import DynamicTables

NTDLL = 0x7FFA00000000
HEAD = NTDLL + asm.TEXT + 0x40
JIT, INFO, FUNCTIONS, TABLES = 0x20000000, 0x20000800, 0x30000000, 0x31000000
SORTED, UNSORTED, CALLBACK, GROWABLE = range(4)


def table(
    after: int,
    before: int,
    kind: int,
    *,
    functions: int = FUNCTIONS,
    count: int = 2,
    first: int = JIT,
    end: int = JIT + 0x1000,
    base: int = JIT,
) -> bytes:
    """Return a DYNAMIC_FUNCTION_TABLE without the members after EntryCount."""
    head = struct.pack("<QQQQQQQ", after, before, functions, 0, first, end, base)
    return head + struct.pack("<QQQII", 0, 0, 0, kind, count)


def function(begin: int, end: int) -> bytes:
    return struct.pack("<III", begin, end, INFO - JIT)


def tables(*listed: bytes, getter: bytes | None = None, entries: bytes = bytes(24)) -> tuple[DynamicTables, Memory]:
    """Put an ntdll, its list and a table of functions into memory; the list's entries are 0x100 bytes apart."""
    code = getter or b"\x48\x8d\x05" + struct.pack("<i", HEAD - (NTDLL + asm.TEXT + 7)) + b"\xc3"
    image = bytearray(
        ImageBuilder(code.ljust(0x80, b"\xcc"), exports={"RtlGetFunctionTableListHead": asm.TEXT}).build()
    )
    struct.pack_into("<QQ", image, HEAD - NTDLL, TABLES if listed else HEAD, HEAD)
    segments = {NTDLL: bytes(image), FUNCTIONS: entries}
    segments |= {TABLES + 0x100 * index: data for index, data in enumerate(listed)}
    memory = memory_of(segments)
    images = ImageMap(memory, ModuleMap([Module("ntdll.dll", "", NTDLL, len(image))]))
    return DynamicTables(Symbols(images, lambda _: None)), memory


def one(kind: int, **members: int) -> bytes:
    return table(HEAD, HEAD, kind, **members)


TWO_FUNCTIONS = function(0x10, 0x40) + function(0x40, 0x80)


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        (SORTED, TWO_FUNCTIONS),
        (GROWABLE, TWO_FUNCTIONS),
        (UNSORTED, TWO_FUNCTIONS[12:] + TWO_FUNCTIONS[:12]),
    ],
)
def test_the_entry_of_a_function_is_found(kind: int, entries: bytes) -> None:
    known, _ = tables(one(kind), entries=entries)
    found = known.function_at(JIT + 0x50)
    assert found is not None
    assert (found.base, found.source) == (JIT, f"dynamic function table at {TABLES:#x}")
    assert found.entry is not None
    assert (found.entry.begin, found.entry.end) == (0x40, 0x80)
    assert known.function_at(JIT + 0x1000) is None


def test_a_table_with_a_callback_gives_its_range_only() -> None:
    known, _ = tables(one(CALLBACK, count=0))
    assert known.function_at(JIT + 0x50) == OutsideFunction(
        f"in the range of the dynamic function table at {TABLES:#x}"
    )


def test_the_list_is_followed_and_has_a_limit_on_entries() -> None:
    """The first table claims so many entries that they are not believed; its range is known all the same."""
    first = table(TABLES + 0x100, HEAD, SORTED, count=0xFFFFFFFF, first=JIT + 0x2000, end=JIT + 0x3000)
    known, _ = tables(first, table(HEAD, TABLES, SORTED), entries=TWO_FUNCTIONS)
    of_first, of_second = known.function_at(JIT + 0x2010), known.function_at(JIT + 0x20)
    assert of_first is not None
    assert of_first.entry is None
    assert of_second is not None
    assert of_second.entry is not None


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(table(HEAD, 0x1234, SORTED), id="a link back to elsewhere"),
        pytest.param(one(SORTED, end=JIT), id="an empty range"),
        pytest.param(one(SORTED, end=JIT + (1 << 40)), id="a range of a terabyte"),
        pytest.param(one(SORTED, base=JIT + 1), id="a base after the code"),
    ],
)
def test_a_table_that_cannot_be_one_is_left_out(broken: bytes) -> None:
    known, _ = tables(broken, entries=TWO_FUNCTIONS)
    assert known.function_at(JIT + 0x20) is None


def test_a_list_that_leads_nowhere_or_in_a_circle_ends() -> None:
    known, _ = tables(table(0x666000, HEAD, SORTED, first=JIT + 0x2000, end=JIT + 0x3000))
    assert known.function_at(JIT) is None
    known, _ = tables(table(TABLES, TABLES, SORTED, first=JIT + 0x2000, end=JIT + 0x3000))
    assert known.function_at(JIT) is None
    known, _ = tables(getter=b"\xc3")
    assert known.function_at(JIT) is None


def test_generated_code_is_unwound_by_its_registered_unwind_data() -> None:
    """push rbx; sub rsp,20h in generated code: rbx is restored, rbp is no frame pointer and not asked."""
    known, memory = tables(one(SORTED), entries=TWO_FUNCTIONS)
    scene = Scene(BODY)
    scene.segments[JIT] = (bytes(0x10) + PUSH_RBX_SUB_20 + b"\xff\xd0" + BODY).ljust(0x800, b"\xcc") + asm.unwind_info(
        [asm.alloc(5, 0x20), asm.push_nonvol(1, RBX)], 5
    )
    scene.segments |= {at: memory.read(at, 0x100) for at in (FUNCTIONS, TABLES)}
    sp, caller_sp, further = Label(), Label(), Label()
    scene.stack.at(0x13D00).mark(sp).d64(JIT + 0x17).zeros(0x20).d64(0x5A5A).d64(scene.return_address)
    scene.caller_frame(caller_sp)
    scene.stack.at(0x13F00).mark(further).d64(0, scene.return_address)
    walk = scene.unwinder(sources=[known]).walk(named(rip=scene.callee, rsp=sp, rbp=further), STACK)
    assert [frame.ip for frame in walk.frames][:3] == [scene.callee, JIT + 0x17, scene.return_address]
    assert walk.frames[2].trust is Trust.CFI
    assert walk.frames[2].note == f"dynamic function table at {TABLES:#x}"
    assert (gpr(walk, 2, "rbx"), gpr(walk, 2, "rbp")) == (0x5A5A, int(further))
