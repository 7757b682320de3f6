# SPDX-License-Identifier: Apache-2.0
"""The fuller kernel: what it adds is there, and Volatility sees the same machine with some processes more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pefile
import pytest
from volatility3.plugins.windows import threads

from tests.forge.__main__ import forge, main
from tests.forge.cases.service_x64 import build
from tests.forge.fuller_kernel import with_processes
from tests.forge.truth import Truth
from tests.support.vol import vol
from tests.support.volatility_session import open_dump


@pytest.fixture(scope="module")
def fuller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fuller")
    assert main(["service-x64", str(out), "--fuller-kernel"]) == 0
    return out


def test_volatility_sees_the_case_and_the_systems_own_processes(fuller: Path):
    truth = Truth.load(fuller / "truth.json")
    with open_dump(fuller / "MEMORY.DMP", fuller / "isf") as session:
        names = [process.ImageFileName.cast("string", max_length=15) for process in session.processes().values()]
        listed = {(row["PID"], row["TID"]) for row in session.rows(threads)}
        image = session.kernel_layer.read(session.kernel.offset, 0x1000, pad=True)
        parsed = pefile.PE(data=image, fast_load=True)
        size = parsed.OPTIONAL_HEADER.SizeOfImage
        image = bytearray(session.kernel_layer.read(session.kernel.offset, size, pad=True))
        system = session.pointer("PsInitialSystemProcess")
        where = session.kernel.get_symbol("PsInitialSystemProcess").address
        assert system == session.processes()[4].vol.offset
    assert names[:2] == ["System", "smss.exe"]
    assert len(names) > 10
    assert {"services.exe", "ledgersvc.exe"} <= set(names)
    assert listed == {(thread.pid, thread.tid) for thread in truth.stuck} | set(truth.quiet)
    sections = {section.Name.rstrip(b"\0"): section for section in parsed.sections}
    assert b"POOLCODE" in sections
    assert (fuller / "MEMORY.DMP").stat().st_size >= 16 << 20
    # As a file, sections are where their raw data is: the same places, for an image as mapped.
    exports = pefile.PE(data=bytes(image), fast_load=True)
    for section in exports.sections:
        section.PointerToRawData, section.SizeOfRawData = section.VirtualAddress, section.Misc_VirtualSize
    exports = pefile.PE(data=exports.write(), fast_load=True)
    exports.parse_data_directories(directories=[0])
    directory = exports.DIRECTORY_ENTRY_EXPORT
    assert exports.get_string_at_rva(directory.struct.Name) == b"ntoskrnl.exe"
    assert {export.name: export.address for export in directory.symbols}[b"PsInitialSystemProcess"] == where


def test_the_plugin_finds_the_same_threads(fuller: Path):
    truth = Truth.load(fuller / "truth.json")
    rows = vol(fuller, "windows.unhandled").rows
    assert {(row["PID"], row["TID"], row["Context"]) for row in rows} == {
        (stuck.pid, stuck.tid, stuck.context) for stuck in truth.stuck
    }


def test_ids_that_the_case_has_taken_are_left_to_it():
    machine = build().machine
    taken = replace(machine.processes[-1], pid=0x158)
    processes = with_processes(replace(machine, processes=[*machine.processes, taken])).processes
    assert [process.pid for process in processes if process.name == "smss.exe"] == [0x15C]
    assert len({process.pid for process in processes}) == len(processes)


def test_the_fuller_kernel_is_for_x64_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["quiet-x86", str(tmp_path), "--fuller-kernel"]) == 1
    assert "x64 only" in capsys.readouterr().err


def test_without_the_fuller_kernel_nothing_is_added(tmp_path: Path):
    forge(build(), tmp_path)
    assert (tmp_path / "MEMORY.DMP").stat().st_size < 16 << 20
