# SPDX-License-Identifier: Apache-2.0
"""Every kind of exception reads as docs/exceptions.md says, and hostile memory is described without failing."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.exceptions.golden import GOLDEN, Golden
from tests.exceptions.layout import BASE, Layout, Ptr, cpp_record, record, throw
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.memory import memory_of
from throwstack.core.registers import Arch
from throwstack.exceptions.describe import _FAMILIES, describe
from throwstack.exceptions.model import ExceptionKind, ExceptionText, FaultAccess
from throwstack.images.image import ImageMap
from throwstack.images.modules import Module, ModuleMap

DOCS = Path(__file__).parents[2] / "docs" / "exceptions.md"


def said(layout: Layout, what: ExceptionRecord, *without: str) -> ExceptionText:
    memory = layout.memory(*without)
    return describe(what, memory, layout.images(memory), layout.arch)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case.shows}-{case.arch.value}")
def test_each_exception_has_the_title_that_is_documented(case: Golden):
    layout = Layout(case.arch)
    assert said(layout, case.build(layout)).title == case.title


@dataclass
class Forged(Layout):
    """Memory in which the text that begins with `old` is another: its second character is a quotation mark."""

    old: str = ""

    def place(self, label: str, *parts: object) -> int:
        new = self.old[0] + '"' + self.old[2:]
        for codec in ("latin-1", "utf-16-le"):
            old, given = self.old.encode(codec), new.encode(codec)
            parts = tuple(part.replace(old, given) if isinstance(part, bytes) else part for part in parts)
        return super().place(label, *parts)


@pytest.mark.parametrize(
    "case", [case for case in GOLDEN if '"' in case.title], ids=lambda case: f"{case.shows}-{case.arch.value}"
)
def test_a_quotation_mark_in_a_message_is_marked_so_that_no_message_can_end_its_title(case: Golden):
    """Without the mark, a message `no", HRESULT 0x80004005 E_FAIL` would give its exception an HRESULT."""
    begin = case.title.split('"')[1][:4]
    text = said(layout := Forged(case.arch, old=begin), case.build(layout))
    assert text.title == case.title.replace('"' + begin, f'"{begin[0]}\\"{begin[2:]}')


def test_the_table_in_the_documentation_has_exactly_the_golden_rows():
    rows = [f"| {case.shows} | {case.arch.value} | `` {case.title} `` |" for case in GOLDEN]
    table = [line for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| ") and "| x" in line]
    assert table == rows


def test_thrown_type_comes_first_and_then_its_bases():
    layout = Layout(Arch.X64)
    layout.place("text", b"bad\0")
    layout.place("object", Ptr("", BASE), Ptr("text"), b"\0" * 8)
    throw(layout, (".?AVout_of_range@std@@", 24), (".?AVlogic_error@std@@", 24), (".?AVexception@std@@", 24))
    text = said(layout, cpp_record(layout))
    assert text.thrown_type == "std::out_of_range"
    assert text.bases == ("std::logic_error", "std::exception")
    assert text.message == "bad"
    assert text.kind is ExceptionKind.CPP


def test_a_com_error_has_its_hresult():
    layout = Layout(Arch.X86)
    text = said(layout, GOLDEN[[case.shows for case in GOLDEN].index("`_com_error`")].build(layout))
    assert (text.thrown_type, text.hresult) == ("_com_error", 0x80004003)


def test_a_detail_says_that_the_throw_info_is_on_an_absent_page():
    layout = Layout(Arch.X86)
    layout.place("object", Ptr("", BASE), Ptr("", 0))
    layout.page()
    throw(layout, (".?AVexception@std@@", 12))
    text = said(layout, cpp_record(layout), "info")
    assert text.title == "C++ exception of unknown type"
    assert text.details[0].startswith("the throw info is not in memory")
    assert text.details[0].endswith("of thrower")


def test_the_type_is_known_where_the_object_is_on_an_absent_page():
    layout = Layout(Arch.X86)
    throw(layout, (".?AVexception@std@@", 12))
    layout.page()
    layout.place("object", Ptr("", BASE), Ptr("", 0))
    text = said(layout, cpp_record(layout), "object")
    assert text.title == "C++ std::exception"
    assert "the thrown object is not in memory" in text.details


def test_a_detail_says_that_the_message_is_on_an_absent_page():
    layout = Layout(Arch.X64)
    layout.place("object", Ptr("", BASE), Ptr("text"), b"\0" * 8)
    throw(layout, (".?AVexception@std@@", 24))
    layout.page()
    layout.place("text", b"gone\0")
    text = said(layout, cpp_record(layout), "text")
    assert text.title == "C++ std::exception"
    assert "its message is not in memory" in text.details


def test_type_name_of_a_megabyte_is_cut():
    layout = Layout(Arch.X86)
    layout.place("object", b"\0" * 16)
    throw(layout, (".?AV" + "x" * (1 << 20), 4))
    text = said(layout, cpp_record(layout))
    assert text.title.endswith("x…")
    assert len(text.title) < 600


def test_type_name_with_control_characters_is_made_visible():
    layout = Layout(Arch.X86)
    layout.place("object", b"\0" * 16)
    throw(layout, (".?AV\x1b[2J\nroot@@", 4))
    assert said(layout, cpp_record(layout)).title == r"C++ .?AV\x1b[2J\nroot@@"


def test_mangled_name_that_stands_for_gigabytes_stays_mangled():
    nested = ".P6AX" + "PAH" + "".join(f"P6AX{str(level) * 6}@Z" for level in range(9)) + "@Z"
    layout = Layout(Arch.X86)
    layout.place("object", b"\0" * 16)
    throw(layout, (nested, 4))
    assert said(layout, cpp_record(layout)).thrown_type == nested


@pytest.mark.parametrize("count", [0, 65, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_detail_says_that_the_throw_info_claims_an_absurd_number_of_types(count: int):
    layout = Layout(Arch.X86)
    layout.place("object", b"\0" * 16)
    throw(layout, (".?AVexception@std@@", 12))
    layout.place("array", count, *[layout.labels["catchable0"]] * 2)
    layout.place("info", 0, 0, 0, layout.labels["array"])
    assert f"the throw info claims {count} types of thrower" in said(layout, cpp_record(layout)).details


def test_a_list_of_bases_that_repeats_itself_ends():
    layout = Layout(Arch.X86)
    layout.place("object", b"\0" * 16)
    throw(layout, (".?AVA@@", 4), (".?AVB@@", 4))
    cycle = [layout.labels["catchable0"], layout.labels["catchable1"]] * 20
    layout.place("array", 40, *cycle)
    layout.place("info", 0, 0, 0, layout.labels["array"])
    text = said(layout, cpp_record(layout))
    assert (text.thrown_type, text.bases) == ("A", ("B",))
    assert "the throw info repeats a type of thrower" in text.details


def test_a_detail_says_what_is_at_the_address_of_a_fault():
    layout = Layout(Arch.X86)
    layout.place("anything", b"\0")
    inside = said(layout, record(0xC0000005, 1, BASE + 0x1234)).details
    assert "0x10001234: thrower+0x1234" in inside
    assert "0x00000010: a null pointer plus an offset" in said(layout, record(0xC0000005, 0, 0x10)).details
    memory = layout.memory()
    owned = describe(
        record(0xC0000005, 0, 0x5000000), memory, layout.images(memory), Arch.X86, lambda _: "private memory"
    )
    assert "0x05000000: private memory" in owned.details


def test_a_detail_explains_the_address_of_a_fault_that_is_not_canonical():
    layout = Layout(Arch.X64)
    layout.place("anything", b"\0")
    details = said(layout, record(0xC0000005, 0, (1 << 64) - 1)).details
    assert any("not canonical" in line for line in details)


def test_an_error_of_visual_basic_is_recognised_by_the_loaded_runtime():
    memory = memory_of({})
    modules = ModuleMap([Module("MSVBVM60.DLL", "", 0x72940000, 0x150000)])
    said_so = describe(record(0xC000008F), memory, ImageMap(memory, modules), Arch.X86)
    assert said_so.title == "Visual Basic run-time error"
    without = describe(record(0xC000008F), memory, ImageMap(memory, ModuleMap([])), Arch.X86)
    assert without.title == "FLOAT_INEXACT_RESULT"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0xC0000005, ExceptionKind.HARDWARE_FAULT),
        (0xC0000094, ExceptionKind.HARDWARE_FAULT),  # STATUS_INTEGER_DIVIDE_BY_ZERO, by its code alone
        (0x80000003, ExceptionKind.HARDWARE_FAULT),
        (0xE06D7363, ExceptionKind.CPP),
        (0x20474343, ExceptionKind.GCC),
        (0xE0434352, ExceptionKind.CLR),
        (0x0EEDFADE, ExceptionKind.DELPHI),
        (0xC0000409, ExceptionKind.FAIL_FAST),
        (0xC06D007E, ExceptionKind.DELAY_LOAD),
        (0xC000027B, ExceptionKind.WINRT),
        (0xE24C4A02, ExceptionKind.OTHER_RUNTIME),
        *((code, ExceptionKind.DEBUGGER_SIGNAL) for code in (0x406D1388, 0x40010006, 0x4001000A, 0x04242420)),
        *((code, ExceptionKind.DEBUGGER_SIGNAL) for code in (0x40080201, 0x0EEDFADF, 0x0EEDFAE5)),
        (0xC0000022, ExceptionKind.STATUS),  # STATUS_ACCESS_DENIED
        (0x80070005, ExceptionKind.STATUS),  # E_ACCESSDENIED
        (1722, ExceptionKind.STATUS),  # RPC_S_SERVER_UNAVAILABLE
        (0xE0001234, ExceptionKind.APPLICATION),
        (0x80123456, ExceptionKind.UNKNOWN),
    ],
)
def test_the_kind_is_told_by_the_code(code: int, kind: ExceptionKind):
    memory = memory_of({})
    assert describe(record(code), memory, ImageMap(memory, ModuleMap([])), Arch.X86).kind is kind


@pytest.mark.parametrize(
    ("arch", "parameters", "facts"),
    [
        (Arch.X86, (0, 0x10), (0x10, FaultAccess.READ)),
        (Arch.X64, (1, 0), (0, FaultAccess.WRITE)),
        (Arch.X64, (8, 0x7FF600001000), (0x7FF600001000, FaultAccess.EXECUTE)),
        (Arch.X86, (3, 0x10), (0x10, None)),  # a kind of access that no documentation has
        (Arch.X86, (), (None, None)),
        (Arch.X64, (0, (1 << 64) - 1), (None, FaultAccess.READ)),  # the true address is not known
    ],
)
def test_the_fault_of_an_access_violation_is_a_fact(
    arch: Arch, parameters: tuple[int, ...], facts: tuple[int | None, FaultAccess | None]
):
    memory = memory_of({})
    text = describe(record(0xC0000005, *parameters), memory, ImageMap(memory, ModuleMap([])), arch)
    assert (text.fault_address, text.fault_kind) == facts


@pytest.mark.parametrize(("code", "hresult"), [(0xE0434352, 0x80131509), (0x80070005, 0x80070005), (0xC0000022, None)])
def test_an_hresult_is_a_fact_where_there_is_one(code: int, hresult: int | None):
    memory = memory_of({})
    parameters = (0x80131509,) if code == 0xE0434352 else ()
    assert describe(record(code, *parameters), memory, ImageMap(memory, ModuleMap([])), Arch.X86).hresult == hresult


def test_a_rust_panic_is_one_whichever_runtime_raised_it():
    memory = memory_of({BASE: b"MOZ\0RUST"})
    images = ImageMap(memory, ModuleMap([]))
    assert describe(record(0x20474343, BASE), memory, images, Arch.X64).kind is ExceptionKind.RUST
    layout = Layout(Arch.X64)
    layout.place("object", b"\0" * 16)
    throw(layout, ("rust_panic", 16))
    assert said(layout, cpp_record(layout)).kind is ExceptionKind.RUST


def test_a_detail_names_each_nested_record():
    first = struct.pack("<5I", 0xC0000005, 0, 0, 0x401234, 0)
    memory = memory_of({0x2000: first})
    outer = ExceptionRecord(0xC0000025, 1, 0x77000000, 0x2000, (), 0x3000, 0)
    text = describe(outer, memory, ImageMap(memory, ModuleMap([])), Arch.X86)
    assert text.title.startswith("0xC0000025 STATUS_NONCONTINUABLE_EXCEPTION")
    assert text.details == ("raised while handling 0xC0000005 at 0x00401234",)


ADDRESSES = st.sampled_from([0, 0x10, BASE, BASE + 0x1000, BASE + 0x1FF0, BASE + 0x2FF8, (1 << 32) - 4, (1 << 64) - 8])


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    code=st.one_of(st.sampled_from(sorted(_FAMILIES)), st.integers(0, 0xFFFFFFFF)),
    arch=st.sampled_from(Arch),
    parameters=st.lists(st.one_of(ADDRESSES, st.sampled_from([0x19930520, 1, 7])), max_size=15),
    words=st.lists(st.one_of(ADDRESSES, st.integers(0, 70)), min_size=1, max_size=64),
    raw=st.binary(max_size=200),
)
def test_describe_never_fails_on_hostile_memory(code, arch, parameters, words, raw):
    pack = "<I" if arch is Arch.X86 else "<Q"
    size = arch.pointer_size
    cells = b"".join(struct.pack(pack, word & ((1 << (8 * size)) - 1)) for word in words)
    memory = memory_of(
        {BASE + 0x1000: (cells * (0x1000 // len(cells) + 1))[:0x1000], BASE + 0x2000: raw.ljust(4, b"\0")}
    )
    images = ImageMap(memory, ModuleMap([Module("a\x1b.dll", "", BASE, 0x3000)]))
    what = ExceptionRecord(code, 0, BASE, BASE + 0x1000, tuple(parameters), BASE, len(parameters))
    text = describe(what, memory, images, arch)
    shown = (text.title, text.thrown_type, text.message, *text.bases, *text.details)
    assert all(line.isprintable() and len(line) < 40_000 for line in shown)
    assert len(text.title) < 1500
