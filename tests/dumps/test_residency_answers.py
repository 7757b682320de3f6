# SPDX-License-Identifier: Apache-2.0
"""The plugins' answers when the crashed process's pages are in other states than valid: the same as when all are.

Every page of the process changes its state: code, function tables, stacks, TEBs, PEB, loader data, saved contexts.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pefile
import pytest

from tests.forge.__main__ import forge, with_paging
from tests.forge.cases import builders
from tests.forge.describe import Paging, Region, Residency
from tests.forge.layouts import CARRIED
from tests.support.checkout_plugins import STACKWALK, UNHANDLED
from tests.support.patched_memory import opened
from tests.support.plugins_truth import expected_stacks, expected_unhandled
from tests.support.residency import L1TF_MASK, PAGE, Spread, all_in, answers, check, spread_over
from tests.support.shared import shared
from tests.support.volatility_session import open_dump
from throwstack.core.memory import Memory
from throwstack.volatility.coverage import coverage
from throwstack.volatility.survey import Selection, Survey

_WRITE = 0x80000000


def shared_only_by_view(region: Region, _page: int) -> Residency:
    """Pages of images have no entry at all; the others are their section's."""
    return Residency.UNTOUCHED if region.is_image else Residency.PROTOTYPE_BY_VAD


MIXTURE = [
    Residency.VALID,
    Residency.TRANSITION,
    Residency.PROTOTYPE,
    Residency.PROTOTYPE_BY_VAD,
    Residency.IN_PAGE_FILE,
]


def mixed(region: Region, page: int) -> Residency:
    """Every page in another state than its neighbours; private memory has no prototypes."""
    if region.is_image:
        return MIXTURE[(page * 3 + region.base // 0x10000) % len(MIXTURE)]
    return (Residency.TRANSITION, Residency.IN_PAGE_FILE, Residency.VALID)[(page + region.base // 0x10000) % 3]


def read_only_in_files(region: Region, page: int) -> Residency:
    """Nothing of an image's read-only pages is in the dump but where the loader writes: the import addresses."""
    if not region.is_image:
        return Residency.VALID
    image = pefile.PE(data=region.data, fast_load=True)
    table = image.OPTIONAL_HEADER.DATA_DIRECTORY[12]
    start, size = table.VirtualAddress, table.Size
    if size and start // PAGE <= page <= (start + size - 1) // PAGE:
        return Residency.VALID
    section = next((one for one in image.sections if one.VirtualAddress <= page * PAGE < _end(one)), None)
    is_writable = section is not None and section.Characteristics & _WRITE
    return Residency.VALID if is_writable else Residency.IN_FILE


def _end(section: Any) -> int:
    return -(-(section.VirtualAddress + section.Misc_VirtualSize) // PAGE) * PAGE


EVERY = [
    pytest.param(all_in(Residency.PROTOTYPE), Residency.PROTOTYPE, id="prototype"),
    pytest.param(shared_only_by_view, Residency.PROTOTYPE_BY_VAD, id="by VAD"),
    pytest.param(all_in(Residency.TRANSITION), Residency.TRANSITION, id="in transition"),
    pytest.param(all_in(Residency.IN_PAGE_FILE), Residency.IN_PAGE_FILE, id="page file"),
    pytest.param(mixed, Residency.TRANSITION, id="mixed"),
]
MACHINES = [("ftp-2003", Paging.X86), ("ftp-2003", Paging.PAE), ("service-x64", None)]


@pytest.mark.parametrize(("name", "paging"), MACHINES)
@pytest.mark.parametrize(("spread", "loader"), EVERY)
def test_answers_are_the_same_in_every_state_of_the_pages(
    name: str, paging: Paging | None, spread: Spread, loader: Residency, tmp_path: Path
):
    case = builders()[name][0]()
    if paging is not None:
        case.machine = with_paging(case.machine, paging)
    spread_over(case, spread, loader)
    check(case, answers(case, tmp_path))


@pytest.mark.parametrize(("name", "paging"), MACHINES)
def test_answers_are_the_same_when_page_tables_are_in_the_page_file_too(
    name: str, paging: Paging | None, tmp_path: Path
):
    case = builders()[name][0]()
    if paging is not None:
        case.machine = with_paging(case.machine, paging)
    spread_over(case, all_in(Residency.IN_PAGE_FILE), Residency.IN_PAGE_FILE)
    case.machine = replace(
        case.machine, processes=[replace(one, pages_out_tables=True) for one in case.machine.processes]
    )
    check(case, answers(case, tmp_path))


LAYOUTS = [
    ("ftp-2003", "layouts/vista_sp2_x86.json.xz"),
    ("ftp-2003", "layouts/win7_sp1_x86.json.xz"),
    ("ftp-2003", "layouts/win10_x86_19041.json.xz"),
    ("ftp-2003", "isf/windows/ntkrnlpa.pdb/30B5FB31AE7E4ACAABA750AA241FF331-1.json.xz"),
    ("service-x64", "isf/windows/ntkrnlmp.pdb/3844DBB920174967BE7AA4A2C20430FA-2.json.xz"),
    ("service-x64", "isf/windows/ntkrnlmp.pdb/00F31FD82648C8ED1A4426DFFC56A424-1.json.xz"),
    ("service-x64", "isf/windows/ntkrnlmp.pdb/0B0A89438BE7729EB33FD00A7D6FA816-1.json.xz"),
]


@pytest.mark.parametrize(("name", "file"), LAYOUTS)
def test_answers_are_the_same_on_other_versions_of_windows(name: str, file: str, tmp_path: Path):
    directory = shared()
    if directory is None:
        pytest.skip("no directory with kernels' symbols beside the checkout")
    case = builders()[name][0]()
    spread_over(case, mixed, Residency.PROTOTYPE_BY_VAD)
    check(case, answers(case, tmp_path, isf=directory / file))


@pytest.mark.parametrize(("name", "layout"), [("ftp-2003", "win7_sp1_x86"), ("ftp-2003", "win10_x86_19041")])
def test_answers_are_the_same_with_the_layouts_that_the_repository_carries(name: str, layout: str, tmp_path: Path):
    case = builders()[name][0]()
    spread_over(case, mixed, Residency.PROTOTYPE_BY_VAD)
    check(case, answers(case, tmp_path, isf=CARRIED / f"{layout}.json.xz"))


def test_answers_are_the_same_with_the_mask_against_l1tf(tmp_path: Path):
    case = builders()["service-x64"][0]()
    case.machine = replace(case.machine, invalid_pte_mask=L1TF_MASK)
    spread_over(case, mixed, Residency.PROTOTYPE)
    check(case, answers(case, tmp_path))


@pytest.mark.parametrize("name", ["ftp-2003", "service-x64"])
def test_image_pages_come_from_files_and_the_frames_say_so(name: str, tmp_path: Path):
    case = builders()[name][0]()
    spread_over(case, read_only_in_files, Residency.VALID)
    files = tmp_path / "files"
    files.mkdir()
    for process in case.machine.processes:
        for region in process.regions:
            if region.is_image and region.file:  # its sections are in the file as they do in memory
                (files / region.file.rpartition("\\")[2]).write_bytes(region.data)
    rows = answers(case, tmp_path, image_path=str(files))
    check(case, rows)
    notes = [row["Notes"] for row in rows[1]]
    assert sum("from its file" in note for note in notes) >= len(notes) // 2
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session:
        walked = session.rows(STACKWALK, pid=[case.truth.stuck[0].pid], image_path=str(files))
    of_files = [row["IP"] for row in walked if "from its file" in str(row["Notes"])]
    assert {row["IP"] for row in rows[1] if "from its file" in row["Notes"]} & set(of_files)
    assert all(row["Side"] != "kernel" for row in walked if row["IP"] in of_files)


def without_stacks(region: Region, _page: int) -> Residency:
    return Residency.VALID if region.is_image else Residency.PAGED_OUT


def without_exports(region: Region, page: int) -> Residency:
    if not region.is_image:
        return Residency.VALID
    table = pefile.PE(data=region.data, fast_load=True).OPTIONAL_HEADER.DATA_DIRECTORY[0]
    first, last = table.VirtualAddress // PAGE, (table.VirtualAddress + table.Size - 1) // PAGE
    return Residency.PAGED_OUT if table.Size and first <= page <= last else Residency.VALID


@pytest.mark.parametrize(
    ("spread", "reason", "has_rows"),
    [
        pytest.param(without_stacks, "its stack, or a part of it, cannot be read", False, id="stacks"),
        # The dispatch of each exception is still on its stack, with a CONTEXT, whatever has a name.
        pytest.param(without_exports, "no function of KERNELBASE", True, id="exports"),
        pytest.param(all_in(Residency.VALID), "", True, id="nothing"),
    ],
)
def test_what_may_hide_a_stuck_thread_is_said(
    spread: Spread, reason: str, has_rows: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    case = builders()["service-x64"][0]()
    spread_over(case, spread, Residency.VALID)
    forge(case, tmp_path)
    for file in (tmp_path / "isf" / "windows").iterdir():
        if not file.name.startswith("ntkrnl"):  # leaves the names to the exports
            shutil.rmtree(file)
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session, caplog.at_level("WARNING", "throwstack"):
        rows = session.rows(UNHANDLED)
    assert len(rows) == (len(case.truth.stuck) if has_rows else 0)
    assert ("stuck threads may have been missed" in caplog.text) is bool(reason)
    assert reason in caplog.text


def test_a_process_whose_own_data_cannot_be_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    case = builders()["service-x64"][0]()
    forge(case, tmp_path)
    (pid,) = {stuck.pid for stuck in case.truth.stuck}
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session:
        machine = opened(session)
        address = machine.canonical(session.processes()[pid].vol.offset)
        whole = machine.memory

        class WithoutIt:
            def page(self, address_of_page: int) -> bytes | None:
                return None if address_of_page == address & -PAGE else whole.page(address_of_page)

        machine.memory = Memory(WithoutIt())
        assert list(Survey(machine, Selection()).findings()) == []
        problems: list[str] = []
        assert pid not in {process.pid for process in coverage(machine, problems)}
    unnamed = f"the process at {address:#x} cannot be examined"
    assert unnamed in caplog.text
    assert any(problem.startswith(unnamed) for problem in problems)


def without_unwind_data(region: Region, page: int) -> Residency:
    """Only the function table of the throwing program is gone: it is in the program's file."""
    if not region.is_image or not (region.file or "").endswith("ledgersvc.exe"):
        return Residency.VALID
    table = pefile.PE(data=region.data, fast_load=True).OPTIONAL_HEADER.DATA_DIRECTORY[3]
    start, size = table.VirtualAddress, table.Size
    return Residency.IN_FILE if start // PAGE <= page <= (start + size - 1) // PAGE else Residency.VALID


def test_a_stack_whose_unwind_data_is_gone_goes_on_by_the_code_or_ends_with_that_reason(tmp_path: Path):
    case = builders()["service-x64"][0]()
    spread_over(case, without_unwind_data, Residency.VALID)
    unhandled, stacks = answers(case, tmp_path)
    expected = expected_unhandled(case.truth)
    assert [row["TID"] for row in unhandled] == [row["TID"] for row in expected]
    truth = {(row["TID"], row["Frame"]): row["IP"] for row in expected_stacks(case.truth)}
    for row in stacks:
        assert row["IP"] == truth[row["TID"], row["Frame"]], "no frame is made up"
    ends = 0
    for tid in {row["TID"] for row in stacks}:
        rows = [row for row in stacks if row["TID"] == tid]
        by_code = [row for row in rows if row["Trust"] not in {"context", "cfi"}]
        assert by_code
        for row in by_code:
            assert "no entry for RVA" in row["Notes"], "the frame says that it was found without the table"
        if len(rows) < sum(thread == tid for thread, _ in truth):
            ends += 1
            assert "stack ends here: memory is not readable: no entry for RVA" in rows[-1]["Notes"]
    assert ends == 1
