# SPDX-License-Identifier: Apache-2.0
"""Forged dumps as Volatility sees them, opened with its ordinary automagic: every paging mode, every kind of file."""

from __future__ import annotations

import itertools
from datetime import datetime, timezone

import pytest
from volatility3.framework.layers import crash, intel
from volatility3.plugins.windows import dlllist, info, modules, pslist, threads, vadinfo

from tests.forge.build import DumpKind, build
from tests.forge.describe import Machine, Paging
from tests.support.forge_machines import base_of_ntdll, image, machine
from tests.support.volatility_session import Session, open_dump

LAYERS = {
    Paging.X64: intel.WindowsIntel32e,
    Paging.PAE: intel.WindowsIntelPAE,
    Paging.X86: intel.WindowsIntel,
}


@pytest.fixture(scope="module", params=itertools.product(Paging, DumpKind), ids=lambda p: f"{p[0].value}-{p[1].name}")
def opened(request, tmp_path_factory):
    """An opened dump with its description and its kind."""
    paging, kind = request.param
    described = machine(paging)
    built = build(described, tmp_path_factory.mktemp("forge"), dump=kind)
    with open_dump(built.dump, built.isf_dir) as session:
        yield session, described, kind


def test_volatility_opens_a_forged_dump_with_its_ordinary_layers(opened: tuple[Session, Machine, DumpKind]):
    session, described, kind = opened
    assert type(session.kernel_layer) is LAYERS[described.paging]
    physical = session.context.layers[session.kernel_layer.dependencies[0]]
    assert isinstance(physical, crash.WindowsCrashDump32Layer) is (kind is not DumpKind.RAW)
    if kind is not DumpKind.RAW:
        header = physical.get_header()
        assert (header.BugCheckCode, *header.BugCheckCodeParameter) == described.bug_check
        assert header.DumpType == kind.value
        assert header.DirectoryTableBase == session.kernel_layer.config["page_map_offset"]
        assert header.SystemTime == described.system_time


def test_volatility_lists_the_processes_described(opened):
    session, described, _ = opened
    rows = session.rows(pslist)
    assert [(row["PID"], row["ImageFileName"], row["PPID"], row["Threads"]) for row in rows] == [
        (4, "System", 0, 0),
        (0x200, "first.exe", 4, 2),
        (0x300, "second.exe", 4, 2),
    ]
    # 128500000000000000 is 2008-03-14 20:26:40; 7218 ticks of 15.625 ms before it, and 100 s on
    assert described.system_time == 128_500_000_000_000_000
    assert rows[1]["CreateTime"] == datetime(2008, 3, 14, 20, 26, 27, tzinfo=timezone.utc)


def test_volatility_lists_the_threads_described(opened):
    session, described, _ = opened
    start = base_of_ntdll(described.paging) + 0x1004
    path = "\\WINDOWS\\system32\\ntdll.dll"
    assert [
        (row["PID"], row["TID"], row["StartAddress"], row["StartPath"], row["Win32StartAddress"])
        for row in session.rows(threads)
    ] == [(pid, pid + 4 * n, start, path, start + 4) for pid in (0x200, 0x300) for n in (1, 2)]


def test_volatility_lists_the_modules_described(opened):
    session, described, _ = opened
    rows = session.rows(dlllist)
    assert [(row["PID"], row["Base"], row["Size"], row["Name"], row["Path"]) for row in rows] == [
        (pid, base_of_ntdll(described.paging), 0xC000, "ntdll.dll", "C:\\WINDOWS\\system32\\ntdll.dll")
        for pid in (0x200, 0x300)
    ]


def test_volatility_lists_the_vads_described(opened):
    session, described, _ = opened
    base = base_of_ntdll(described.paging)
    rows = {row["Start VPN"]: row for row in session.rows(vadinfo, pid=[0x300])}
    ntdll, stack = rows[base], rows[0x3C000]
    assert (ntdll["End VPN"], ntdll["Tag"], ntdll["Protection"]) == (base + 0xBFFF, "Vad ", "PAGE_EXECUTE_WRITECOPY")
    assert (ntdll["File"], ntdll["PrivateMemory"]) == ("\\WINDOWS\\system32\\ntdll.dll", 0)
    assert (stack["End VPN"], stack["Tag"], stack["Protection"]) == (0x3FFFF, "VadS", "PAGE_READWRITE")
    assert (stack["CommitCharge"], stack["PrivateMemory"]) == (4, 1)
    assert {0x7FFDF000, 0x7FFE0000, 0x7FFD0000, 0x7FFCC000} < rows.keys()


def test_volatility_reads_the_version_and_the_time(opened):
    session, described, kind = opened
    rows = {row["Variable"]: row["Value"] for row in session.rows(info)}
    major, minor, build_number = described.version
    assert (rows["NtMajorVersion"], rows["NtMinorVersion"]) == (str(major), str(minor))
    assert rows["Major/Minor"] == f"15.{build_number}"
    assert rows["IsPAE"] == str(described.paging is Paging.PAE)
    assert rows["SystemTime"] == "2008-03-14 20:26:40+00:00"
    assert rows["NtSystemRoot"] == "C:\\WINDOWS"
    assert rows["NTBuildLab"] == f"{build_number}.forge"
    assert kind is DumpKind.RAW or "memory_layer" in rows


def test_volatility_lists_the_kernels_modules(opened):
    session, described, _ = opened
    (row,) = session.rows(modules)
    assert row["Name"] == ("ntkrnlpa.exe" if described.paging is Paging.PAE else "ntoskrnl.exe")
    assert row["Base"] == session.kernel.offset


def test_volatility_reads_the_memory_described(opened):
    session, described, _ = opened
    layer = session.process_layer(0x200)
    assert layer.read(base_of_ntdll(described.paging), 0xC000) == image()
    assert layer.read(0x3C000, 0x4000) == b"\x01" * 0x4000
    shared_data = 0xFFFFF780_00000000 if described.paging.is_64bit else 0xFFDF0000
    assert session.kernel_layer.read(shared_data, 0x300) == layer.read(0x7FFE0000, 0x300)
