# SPDX-License-Identifier: Apache-2.0
"""Pages in every state, in forged dumps of several systems: what a process holds there is read, and by which route.

The truth is the description that the dump was built from. Volatility's own layer reads the same dump beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from volatility3.framework import exceptions

from tests.forge.build import build
from tests.forge.describe import Machine as Description
from tests.forge.describe import Paging, Process, Region, Residency
from tests.support.forge_machines import IMAGE_PAGES, PAGE, base_of_ntdll, image, process
from tests.support.shared import shared
from tests.support.volatility_session import Session, open_dump
from throwstack.core.memory import Memory
from throwstack.pages.page_origin import PageOrigin
from throwstack.pages.resolver import ResolvedPages
from throwstack.volatility.memory.machine import Machine
from throwstack.volatility.opening.sources import Sources

PID = 0x200
PRIVATE, SHARED, LAST = 0x500000, 0x600000, 0x700000
L1TF_MASK = 1 << 45

MAPPED = {
    0: (Residency.VALID, PageOrigin.VALID),
    1: (Residency.PROTOTYPE, PageOrigin.PROTOTYPE),
    2: (Residency.PROTOTYPE, PageOrigin.PROTOTYPE),
    3: (Residency.PROTOTYPE_BY_VAD, PageOrigin.PROTOTYPE),
    4: (Residency.PROTOTYPE_BY_VAD, PageOrigin.PROTOTYPE),
    5: (Residency.UNTOUCHED, PageOrigin.PROTOTYPE),
    6: (Residency.UNTOUCHED, PageOrigin.PROTOTYPE),
    7: (Residency.TRANSITION, PageOrigin.TRANSITION),
    8: (Residency.IN_FILE, PageOrigin.IN_FILE),
    9: (Residency.IN_PAGE_FILE, PageOrigin.PAGE_FILE),
    10: (Residency.DEMAND_ZERO, PageOrigin.ZERO),
    11: (Residency.PAGED_OUT, PageOrigin.PAGED_OUT),
}
"""By page of a mapped image: how it is kept, and the route by which it has to be found."""
ANONYMOUS = MAPPED | {8: (Residency.VALID, PageOrigin.VALID)}
"""The same in memory that processes share without a file."""
OWN = {
    0: (Residency.VALID, PageOrigin.VALID),
    1: (Residency.TRANSITION, PageOrigin.TRANSITION),
    2: (Residency.IN_PAGE_FILE, PageOrigin.PAGE_FILE),
    3: (Residency.DEMAND_ZERO, PageOrigin.ZERO),
    4: (Residency.UNTOUCHED, PageOrigin.ZERO),
    5: (Residency.PAGED_OUT, PageOrigin.PAGED_OUT),
}
"""Private memory, committed as a whole."""
RESERVED = {0: (Residency.VALID, PageOrigin.VALID), 1: (Residency.ABSENT, PageOrigin.NOT_COMMITTED)}
"""Private memory that is reserved and committed in part: an empty entry is no page."""

SYSTEMS: list[tuple[str, Paging, tuple[int, int, int], str, int]] = [
    ("2003 x86", Paging.X86, (5, 2, 3790), "", 0),
    ("2003 PAE", Paging.PAE, (5, 2, 3790), "", 0),
    ("7 x86", Paging.X86, (6, 1, 7601), "", 0),
    ("7 PAE", Paging.PAE, (6, 1, 7601), "", 0),
    ("10 PAE", Paging.PAE, (10, 0, 19041), "", 0),
    ("10 x64", Paging.X64, (10, 0, 19041), "", 0),
    ("10 x64 with mask", Paging.X64, (10, 0, 19041), "", L1TF_MASK),
    ("2003 x64", Paging.X64, (5, 2, 3790), "layouts/win2003_sp2_x64.json.xz", 0),
    ("Vista x86", Paging.X86, (6, 0, 6002), "layouts/vista_sp2_x86.json.xz", 0),
    ("XP PAE", Paging.PAE, (5, 1, 2600), "isf/windows/ntkrnlpa.pdb/30B5FB31AE7E4ACAABA750AA241FF331-1.json.xz", 0),
    ("7 x64", Paging.X64, (6, 1, 7601), "isf/windows/ntkrnlmp.pdb/3844DBB920174967BE7AA4A2C20430FA-2.json.xz", 0),
    ("8.1 x64", Paging.X64, (6, 3, 9600), "isf/windows/ntkrnlmp.pdb/06A508F37B81478E855A3542E272C084-1.json.xz", 0),
    (
        "11 x64 with mask",
        Paging.X64,
        (10, 0, 22000),
        "isf/windows/ntkrnlmp.pdb/0B0A89438BE7729EB33FD00A7D6FA816-1.json.xz",
        L1TF_MASK,
    ),
]


@dataclass
class Opened:
    """A dump that is open, and one process of it as both sides see it."""

    session: Session
    paging: Paging
    pages: ResolvedPages
    layer: Any
    regions: dict[str, Region]


def states(region: dict[int, tuple[Residency, PageOrigin]]) -> dict[int, Residency]:
    return {page: residency for page, (residency, _) in region.items()}


def describe(paging: Paging) -> Process:
    described = process(paging, PID, "first.exe", image())
    described.regions[0].residency = states(MAPPED)
    described.regions += [
        Region(PRIVATE, image(7)[: 6 * PAGE], residency=states(OWN)),
        Region(SHARED, image(8), residency=states(ANONYMOUS)),
        Region(LAST, image(9)[: 2 * PAGE], residency=states(RESERVED), reserve=4 * PAGE),
    ]
    return described


def resolved(session: Session) -> ResolvedPages:
    machine = Machine(session.context, session.kernel_name, "test", Sources("", ""))
    (found,) = [item for item in machine.processes() if int(item.UniqueProcessId) == PID]
    address = machine.canonical(found.vol.offset)
    base = address + machine.layout.offset("_EPROCESS.Pcb.DirectoryTableBase")
    return machine.process_pages(machine.pointer(machine.memory, base), address)


def swap(page_file: Path | None) -> dict[str, Any]:
    assert page_file is not None
    return {"automagic.WinSwapLayers.single_swap_locations": [page_file.as_uri()]}


@pytest.fixture(scope="module", params=SYSTEMS, ids=lambda system: system[0])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    _, paging, version, file, mask = request.param
    directory = shared()
    if file and directory is None:
        pytest.skip("no directory with kernels' symbols beside the checkout")
    described = describe(paging)
    machine = Description(paging, version, [described], invalid_pte_mask=mask)
    isf = directory / file if file and directory is not None else None
    built = build(machine, tmp_path_factory.mktemp("pages"), isf=isf)
    with open_dump(built.dump, built.isf_dir, swap(built.page_file)) as session:
        regions = {"mapped": described.regions[0]}
        regions |= dict(zip(("own", "anonymous", "reserved"), described.regions[-3:], strict=True))
        yield Opened(session, paging, resolved(session), session.process_layer(PID), regions)


EXPECTED = {"mapped": MAPPED, "own": OWN, "anonymous": ANONYMOUS, "reserved": RESERVED}
PAGES = [(name, page) for name, pages in EXPECTED.items() for page in pages]


@pytest.mark.parametrize(("name", "page"), PAGES, ids=str)
def test_a_page_is_what_the_process_has_there(opened: Opened, name: str, page: int):
    region, (residency, origin) = opened.regions[name], EXPECTED[name][page]
    address = region.base + page * PAGE
    found = opened.pages.page(address)
    if residency in {Residency.DEMAND_ZERO, Residency.UNTOUCHED} and origin is PageOrigin.ZERO:
        assert found == bytes(PAGE)
    elif origin.is_present:
        assert found == region.data[page * PAGE : (page + 1) * PAGE]
    else:
        assert found is None
    assert opened.pages.origin(address + 0x123) is origin


UNREADABLE = {Residency.PROTOTYPE, Residency.PROTOTYPE_BY_VAD, Residency.UNTOUCHED, Residency.DEMAND_ZERO}


@pytest.mark.parametrize(("name", "page"), [(n, p) for n, p in PAGES if EXPECTED[n][p][0] in UNREADABLE], ids=str)
def test_volatility_does_not_read_these_pages(opened: Opened, name: str, page: int):
    with pytest.raises(exceptions.InvalidAddressException):
        opened.layer.read(opened.regions[name].base + page * PAGE, 1)


def test_volatility_misses_page_file_entries_of_modern_windows(opened: Opened):
    """It takes the number of the page file from bits that are flags since Windows 8: the swizzle bit makes it 8."""
    region = opened.regions["own"]
    address = region.base + 2 * PAGE
    assert opened.pages.page(address) == region.data[2 * PAGE : 3 * PAGE]
    software = opened.session.kernel.get_type("_MMPTE_SOFTWARE")
    if software.has_member("SwizzleBit"):
        with pytest.raises(exceptions.InvalidAddressException):
            opened.layer.read(address, 1)
    else:
        assert opened.layer.read(address, PAGE) == region.data[2 * PAGE : 3 * PAGE]


def test_all_of_an_image_in_prototypes_reads_as_one_piece(opened: Opened):
    region = opened.regions["mapped"]
    assert Memory(opened.pages).read(region.base, 8 * PAGE) == region.data[: 8 * PAGE]


@pytest.mark.parametrize("pads", [True, False])
def test_pae_pointer_tables_are_read_as_the_32_bytes_that_they_are(pads: bool, tmp_path: Path):
    """Volatility reads a whole page from where one begins; where the next page is absent it finds no process."""
    described = describe(Paging.PAE)
    described.directory_base = 0x7FF000 + PAGE - 32
    built = build(Description(Paging.PAE, (5, 2, 3790), [described], pads_pointer_tables=pads), tmp_path)
    with open_dump(built.dump, built.isf_dir, swap(built.page_file)) as session:
        region = described.regions[0]
        assert resolved(session).page(region.base) == region.data[:PAGE]
        assert session.process_layer(PID).is_valid(region.base) is pads


def test_addresses_outside_all_views_are_not_committed(opened: Opened):
    for address in (0x10000, 0x7FFF0000):
        assert opened.pages.page(address) is None
        assert opened.pages.origin(address) is PageOrigin.NOT_COMMITTED


def test_the_views_are_those_of_the_description(opened: Opened):
    found = {view.start: view for view in opened.pages.views}
    base = base_of_ntdll(opened.paging)
    assert found[base].is_image
    assert found[base].end == base + IMAGE_PAGES * PAGE
    assert (found[PRIVATE].is_private, found[PRIVATE].is_committed) == (True, True)
    assert (found[LAST].is_private, found[LAST].is_committed, found[LAST].end) == (True, False, LAST + 6 * PAGE)
    assert (found[SHARED].is_private, found[SHARED].is_image) == (False, False)
