# SPDX-License-Identifier: Apache-2.0
"""A module whose header page is paged out: ntdll's list of function tables leads to its unwind data all the same."""

from __future__ import annotations

import struct
from pathlib import Path

import pefile
import pytest

from tests.forge.__main__ import forge
from tests.forge.cases.machine_x64 import Site
from tests.forge.cases.service_code import PROGRAM_BASE
from tests.forge.describe import Residency
from tests.support.patched_memory import opened
from tests.support.volatility_session import open_dump
from throwstack.core.frames import End
from throwstack.volatility.survey import Selection, Survey

PID, EXCEPTION_DIRECTORY = 0x14B8, 3


class ListingSite(Site):
    """A machine whose ntdll keeps a list of function tables with the program's in it."""

    def __init__(self, name: str) -> None:
        """Build the images once more, with the list."""
        super().__init__("headless")
        program, ntdll = self.program.image, self.system.images["ntdll"]
        directory = pefile.PE(data=program.build(), fast_load=True).OPTIONAL_HEADER.DATA_DIRECTORY[EXCEPTION_DIRECTORY]
        entry = (program.base + directory.VirtualAddress, program.base, len(program.build()), directory.Size)
        table = struct.pack("<4I", 1, 0x200, 5, 0) + struct.pack("<QQII", *entry)
        ntdll.name_function(name, ntdll.place_data(table, writable=True), exported=True)
        self._built = [(image, image.build()) for image in self.images]


@pytest.mark.parametrize("is_listed", [True, False], ids=["listed", "not listed"])
def test_a_stack_goes_on_through_a_module_without_headers(tmp_path: Path, is_listed: bool):
    site = ListingSite("KiUserInvertedFunctionTable" if is_listed else "SomethingElse")
    process, threads = site.service(PID)
    crash = threads.fault(0x14CC, 6900)
    site.add(process, crash)
    region = next(region for region in process.regions if region.base == PROGRAM_BASE)
    region.residency = {0: Residency.PAGED_OUT}
    forge(site.case(), tmp_path)
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session:
        (finding,) = Survey(opened(session), Selection()).findings()
        (walk,) = finding.stuck.throwing_walks
    expected = crash.truth(process).frames
    found = [(frame.ip, frame.child_sp) for frame in walk.frames]
    how = "by the loader's list" if is_listed else "by its contents"
    assert found == [(frame.ip, frame.child_sp) for frame in expected]
    assert walk.end is End.THREAD_START
    assert f"ledgersvc.exe has no readable headers: unwind data found {how}" in {frame.note for frame in walk.frames}
