# SPDX-License-Identifier: Apache-2.0
"""Whole machines in which images of one process are altered or have absent pages: other processes keep their rows.

A crash is found by the names that kernel32, KERNELBASE and ntdll export. Here they are all the names there are, and
the directories take several pages each, as in real DLLs.
"""

from __future__ import annotations

import shutil
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forge.__main__ import forge
from tests.forge.cases import builders
from tests.forge.images import ImageBuilder
from tests.support.one_process import PAGE, AlteredPages, Answer, survey
from tests.support.patched_memory import Patches, opened
from tests.support.volatility_session import Session, open_dump
from throwstack.core.sides import Side
from throwstack.images.image import Image
from throwstack.names.symbols import Name, SymbolTable, export_table
from throwstack.unwind.target import Target
from throwstack.volatility.opening.sources import Sources
from throwstack.volatility.processes import Process, ProcessReader
from throwstack.volatility.survey import Selection, Survey
from throwstack.volatility.thread_survey import ThreadSurvey

SYSTEM = {"kernel32", "kernelbase", "ntdll"}
FILTER = b"UnhandledExceptionFilter\0"
CASES = {"ftp-2003": 2564, "service-x64": 5304, "wow64-service": 6700}
"""And the PID of the process that crashed in each."""
NEIGHBOUR = 1948
"""Another process of ftp-2003."""

Opened = tuple[Session, int]


def open_case(case: str, out: Path) -> Iterator[Session]:
    """Forge `case` and open it with the kernel's symbols alone."""
    forge(builders()[case][0](), out)
    for file in (out / "isf" / "windows").iterdir():
        if not file.name.startswith("ntkr"):
            shutil.rmtree(file)
    with open_dump(out / "MEMORY.DMP", out / "isf") as session:
        yield session


@pytest.fixture(scope="module", params=CASES)
def crashed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A machine, and the PID of its process that crashed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageBuilder, "more_exports", 500)
        for session in open_case(request.param, tmp_path_factory.mktemp("crashed")):
            yield session, CASES[request.param]


@pytest.fixture(scope="module")
def ftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    yield from open_case("ftp-2003", tmp_path_factory.mktemp("ftp"))


def process_of(session: Session, pid: int) -> Process:
    process = ProcessReader(opened(session)).open(session.processes()[pid])
    assert process is not None
    return process


def images_of(process: Process, *labels: str) -> Iterator[Image]:
    for target in process.sides.values():
        for image in target.images:
            if image.module.label.lower() in labels:
                yield image


def export_pages(image: Image) -> range:
    assert image.headers is not None
    rva, size = image.headers.export_directory
    return range(image.base + rva & -PAGE, image.base + rva + size, PAGE)


def is_false(name: Name, before: Name) -> bool:
    """Say whether `name` is presented as certain and is of another function than the one that was named before.

    Of one function it may be another name, or its ordinal: the words that say so were read.
    """
    return bool(name.symbol) and not name.is_doubtful and name.offset != before.offset


def target_of(process: Process, base: int) -> Target:
    """Return the side of the process that has an image at `base`."""
    return next(one for one in process.sides.values() if one.images.find(base))


def test_an_absent_page_of_the_exports_is_warned_of(crashed: Opened):
    """Each page of each directory in turn, and the headers: the row is as before, or a warning names the process."""
    session, pid = crashed
    whole = survey(session)
    assert whole.of(pid)
    assert whole.warnings == []
    pages = [
        page for image in images_of(process_of(session, pid), *SYSTEM) for page in (image.base, *export_pages(image))
    ]
    assert len(pages) >= 8
    for page in pages:
        answer = survey(session, pid, {page: None})
        assert answer.without(pid) == whole.without(pid), f"{page:#x}"
        assert answer.of(pid) == whole.of(pid) or answer.names(pid), f"{page:#x}"
        assert not list(false_names(answer, whole)), f"{page:#x}"


def false_names(answer: Answer, whole: Answer) -> Iterator[Name]:
    for thread, row in answer.rows.items():
        before = {name.address: name for name in whole.rows[thread][-1]}
        yield from (name for name in row[-1] if name.address in before and is_false(name, before[name.address]))


def test_no_address_gets_a_false_name_by_an_absent_page(crashed: Opened):
    """Not only those that are on a stack: eight bytes into each function that an image exports."""
    session, pid = crashed
    whole = process_of(session, pid)
    for image in images_of(whole, *SYSTEM):
        symbols = target_of(whole, image.base).symbols
        names = [symbols.name(image.base + export.rva + 8) for export in image.exports]
        for page in export_pages(image):
            damaged = target_of(hide(session, pid, page), image.base).symbols
            assert [name for name in names if is_false(damaged.name(name.address), name)] == [], f"{page:#x}"


def hide(session: Session, pid: int, page: int) -> Process:
    """Open the process without a page."""
    machine = opened(session)
    of_machine = machine.process_pages
    machine.process_pages = lambda *process: AlteredPages(of_machine(*process), {page: None})  # type: ignore[method-assign]
    process = ProcessReader(machine).open(session.processes()[pid])
    assert process is not None
    return process


def renamed(process: Process) -> dict[int, bytes | None]:
    """Return private copies of KERNEL32's export pages, in which the filter has another name."""
    (kernel32,) = images_of(process, "kernel32")
    pages = {page: kernel32.memory.read(page, PAGE) for page in export_pages(kernel32)}
    assert any(FILTER in page for page in pages.values())
    return {at: page.replace(FILTER, b"UnhandledExceptionFoobar\0") for at, page in pages.items()}


@pytest.mark.parametrize("liar", [NEIGHBOUR, CASES["ftp-2003"]])
def test_an_altered_copy_of_the_exports_speaks_for_its_process_alone(ftp: Session, liar: int):
    whole = survey(ftp)
    answer = survey(ftp, liar, renamed(process_of(ftp, liar)))
    assert answer.without(liar) == whole.without(liar)
    assert answer.names(liar)
    assert answer.names(CASES["ftp-2003"]) is (liar == CASES["ftp-2003"])


def test_the_file_of_an_image_names_what_its_altered_exports_do_not(ftp: Session):
    pid = CASES["ftp-2003"]
    whole, altered = survey(ftp), renamed(process_of(ftp, pid))
    (kernel32,) = images_of(process_of(ftp, pid), "kernel32")
    answer = survey(ftp, pid, altered, _WithFile(kernel32))
    assert answer.rows == whole.rows
    assert answer.warnings == []


class _WithFile(Sources):
    """The files at hand: one image's, whose exports are those of its undamaged copy."""

    def __init__(self, image: Image) -> None:
        super().__init__("", "")
        self._image = image

    def exports_on_disk(self, image: Image) -> SymbolTable | None:
        return export_table(self._image) if image.base == self._image.base else None


def filter_rva_at(process: Process) -> tuple[int, bytes]:
    """Return the page with the filter's address, and its contents with an address beyond the image instead."""
    (kernel32,) = images_of(process, "kernel32")
    rva = export_table(kernel32).rva_of("UnhandledExceptionFilter")
    assert rva is not None
    for page in export_pages(kernel32):
        data = kernel32.memory.read(page, PAGE)
        at = data.find(struct.pack("<I", rva))
        if at >= 0:
            return page, data[:at] + struct.pack("<I", 0xF0000000) + data[at + 4 :]
    raise AssertionError


def test_an_export_beyond_4_gib_is_dropped(ftp: Session):
    pid = CASES["ftp-2003"]
    page, data = filter_rva_at(process_of(ftp, pid))
    answer = survey(ftp, pid, {page: data})
    assert list(answer.of(pid)) == [(pid, 2792)]
    assert answer.names(pid)


def test_directories_at_the_end_of_a_gigabyte_cost_no_memory(ftp: Session):
    """Each module of a process says that its exports are 8 KiB below 1 GiB, and that it is that large."""
    pid = CASES["ftp-2003"]
    altered: dict[int, bytes | None] = {}
    for image in process_of(ftp, pid).program.images:
        page = bytearray(image.memory.read_available(image.base, 0x1000))
        optional = int.from_bytes(page[0x3C:0x40], "little") + 24
        struct.pack_into("<I", page, optional + 56, 0x40000000)
        struct.pack_into("<II", page, optional + 96, 0x3FFFE000, 0x1000)
        altered[image.base] = bytes(page)
    whole = survey(ftp)
    tracemalloc.start()
    try:
        answer = survey(ftp, pid, altered)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert answer.without(pid) == whole.without(pid)
    assert answer.names(pid)


@pytest.mark.parametrize("case", ["quiet", "quiet-x86", "decoys-x64", "shutdown-hang"])
def test_undamaged_machines_give_no_warning(case: str, tmp_path: Path):
    for session in open_case(case, tmp_path):
        assert survey(session).warnings == []


def test_the_tables_of_one_process_are_not_anothers_way_into_the_kernel(tmp_path: Path):
    """`deadlock`: the kernel frames of 1776 are as before, although 1500, first of its session, has no page tables."""
    for session in open_case("deadlock", tmp_path):
        whole = kernel_frames(Patches(opened(session)), 1776)
        assert whole
        patches = Patches(opened(session))
        first = patches.machine.canonical(session.processes()[1500].vol.offset)
        patches.put(first, "_EPROCESS.Pcb.DirectoryTableBase", 0)
        assert kernel_frames(patches, 1776) == whole


def kernel_frames(patches: Patches, pid: int) -> list[tuple[int, list[str]]]:
    """Walk all threads of the machine; return what the kernel's side of each thread of `pid` is."""
    machine = patches.apply()
    return [
        (report.thread.tid, [str(side.target.symbols.name(frame.ip)) for frame in side.frames])
        for report in ThreadSurvey(Survey(machine, Selection())).reports()
        if report.owner.pid == pid
        for side in report.sides
        if side.side is Side.KERNEL
    ]
