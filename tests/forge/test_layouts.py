# SPDX-License-Identifier: Apache-2.0
"""Layouts: the carried files, the pruning, and dumps made from every ISF that is beside the checkout."""

from __future__ import annotations

import pytest
from volatility3.plugins.windows import dlllist, info, pslist, threads, vadinfo

from tests.forge.build import build
from tests.forge.describe import LoadedModule, Machine, Paging
from tests.forge.layouts import CARRIED, Layout, carried, load, main
from tests.forge.pruning import VOLATILITY
from tests.support.forge_machines import VERSIONS, base_of_ntdll, image, machine
from tests.support.shared import SHARED, isf_files
from tests.support.volatility_session import Session, open_dump

CARRIED_FILES = sorted(CARRIED.glob("*.json.xz"))
KERNELS = {
    "3844DBB9": (6, 1, 7601),
    "06A508F3": (6, 3, 9600),
    "03A098BC": (10, 0, 14393),
    "00F31FD8": (10, 0, 17763),
    "06564D34": (10, 0, 19041),
    "0B0A8943": (10, 0, 22000),
    "30B5FB31": (5, 1, 2600),
    "win2003_": (5, 2, 3790),
    "vista_sp": (6, 0, 6002),
    "win7_sp1": (6, 1, 7601),
    "win10_x8": (10, 0, 19041),
}
"""Windows versions by the first letters of the file's name."""


def referenced(kind: dict) -> list[tuple[str, str]]:
    """Return (kind, name) of what a member's type refers to."""
    inner = kind.get("subtype") or kind.get("type")
    return referenced(inner) if inner else [(kind["kind"], kind.get("name", ""))]


@pytest.mark.parametrize("path", CARRIED_FILES, ids=lambda path: path.name)
def test_carried_layouts_are_small_and_closed(path):
    layout = load(path)
    assert path.stat().st_size < 60_000
    tables = {"struct": layout.types, "union": layout.types, "class": layout.types, "enum": layout.isf["enums"]}
    for name, entry in layout.types.items():
        for field, member in entry["fields"].items():
            for kind, target in referenced(member["type"]):
                assert kind == "function" or target in tables.get(kind, layout.isf["base_types"]), (name, field)
    mandatory = set(VOLATILITY[:29])
    assert mandatory <= layout.types.keys()


def test_pruning_a_layout_twice_changes_nothing_more(tmp_path):
    path = CARRIED / "win2003_sp2_x86.json.xz"
    assert main([str(path), str(tmp_path / "again.json.xz")]) == 0
    assert load(tmp_path / "again.json.xz").isf == load(path).isf


def test_a_layout_gives_offsets_sizes_and_bit_fields():
    """Offsets of the public symbols of Server 2003 SP2 x86: nested, in an array, a bit field, none."""
    layout = load(carried(Paging.X86, (5, 2, 3790)))
    assert layout.offset("_ETHREAD", "Tcb.TrapFrame") == 0x110
    assert layout.offset("_EPROCESS", "Pcb.DirectoryTableBase") == 0x18
    protection = layout.field("_MMVAD_FLAGS", "Protection")
    assert (protection.offset, protection.bit, protection.width) == (0, 24, 5)
    assert not layout.has("_ETHREAD", "NestedFaultCount")
    with pytest.raises(KeyError, match=r"_ETHREAD\.Absent"):
        layout.offset("_ETHREAD", "Absent")


def test_a_layout_of_the_other_pointer_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no layout for paging x64"):
        build(machine(Paging.X64), tmp_path, isf=carried(Paging.X86, (5, 2, 3790)))


def combinations() -> list:
    found = []
    for path in isf_files():
        modes = [Paging.X64] if load(path).is_64bit else [Paging.PAE, Paging.X86]
        found += [pytest.param(path, mode, id=f"{path.name.partition('.')[0][:16]}-{mode.value}") for mode in modes]
    return found or [pytest.param(None, None, marks=pytest.mark.skip(reason=f"no ISFs below {SHARED}"))]


def check_lists(session: Session, paging: Paging) -> None:
    assert [row["PID"] for row in session.rows(pslist)] == [4, 0x200, 0x300]
    assert [row["TID"] for row in session.rows(threads)] == [0x204, 0x208, 0x304, 0x308]
    files = {row["Start VPN"]: row["File"] for row in session.rows(vadinfo, pid=[0x300])}
    assert files[base_of_ntdll(paging)] == "\\WINDOWS\\system32\\ntdll.dll"
    assert session.process_layer(0x300).read(base_of_ntdll(paging), 0xC000) == image()


@pytest.mark.parametrize(("path", "paging"), combinations())
def test_a_dump_is_forged_with_every_isf_at_hand(path, paging, tmp_path):
    described: Machine = machine(paging, VERSIONS[paging])
    if paging is Paging.X64:
        described.processes[1].modules32 = [LoadedModule("ntdll.dll", "C:\\ntdll.dll", 0x77000000, 0x1000)]
    built = build(described, tmp_path, isf=path)
    layout: Layout = load(path)
    assert built.version == KERNELS[path.name[:8]]
    with open_dump(built.dump, built.isf_dir) as session:
        rows = {row["Variable"]: row["Value"] for row in session.rows(info)}
        assert (rows["NtMajorVersion"], rows["NtMinorVersion"]) == tuple(map(str, built.version[:2]))
        assert rows["Symbols"].endswith(layout.guid + "-" + str(layout.pdb["age"]) + ".json.xz") is bool(layout.symbols)
        check_lists(session, paging)
        names = [row["Name"] for row in session.rows(dlllist)]
        assert names == ["ntdll.dll"] * (3 if paging is Paging.X64 else 2)


@pytest.mark.skipif(not isf_files(), reason=f"no ISFs below {SHARED}")
def test_functions_of_a_case_keep_their_names_with_a_real_kernels_symbols(tmp_path):
    """A case's functions have their own names, where a real kernel's ISF has others."""
    path = next(path for path in isf_files() if path.name.startswith("06564D34"))
    described = machine(Paging.X64)
    described.kernel_symbols = {"KiSwapContext": 0x1020}
    headers = build(machine(Paging.X64), tmp_path / "plain")
    with open_dump(headers.dump, headers.isf_dir) as session:
        data = bytearray(session.kernel_layer.read(session.kernel.offset, 0x1000))
    data[0xF00:] = bytes(0x100)
    described.kernel_image = bytes(data) + b"\x90" * 0x1000
    built = build(described, tmp_path / "case", isf=path)
    with open_dump(built.dump, built.isf_dir) as session:
        assert session.kernel.get_symbol("KiSwapContext").address == 0x1020
        table = session.context.symbol_space[session.kernel.symbol_table_name]
        inside = [name for name in table.symbols if 0x1000 <= table.get_symbol(name).address < 0x2000]
        assert inside == ["KiSwapContext"]
        check_lists(session, Paging.X64)
