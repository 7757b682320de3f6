# SPDX-License-Identifier: Apache-2.0
"""The plugins' answers when the crashed process's pages are in the compressed store: the same as when all are there.

The forge writes the stores (three, with trees of several levels) from the published descriptions, compressed by a
compressor of its own. Every page of the process is there: code, function tables, stacks, TEBs, PEB, saved contexts.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from volatility3.framework import exceptions

from tests.forge.__main__ import forge, with_paging
from tests.forge.cases import Case, builders
from tests.forge.describe import Paging, Region, Residency
from tests.forge.layouts import CARRIED
from tests.support.residency import L1TF_MASK, Spread, all_in, answers, check, spread_over
from tests.support.shared import shared
from tests.support.volatility_session import open_dump

IN_STORE = all_in(Residency.IN_STORE)
STATES = (Residency.IN_STORE, Residency.TRANSITION, Residency.IN_STORE, Residency.IN_PAGE_FILE, Residency.VALID)
X86 = CARRIED / "win10_x86_19041.json.xz"


def mixed(region: Region, page: int) -> Residency:
    """Every page in another state than its neighbours."""
    return STATES[(page * 3 + region.base // 0x10000) % len(STATES)]


def compressed(name: str, build: int, spread: Spread = IN_STORE) -> Case:
    """Return a case on Windows 10 or 11 with the pages of its crashed processes in the store."""
    case = builders()[name][0]()
    if not case.machine.paging.is_64bit:
        case.machine = with_paging(case.machine, Paging.PAE)
    case.machine = replace(case.machine, version=(10, 0, build))
    spread_over(case, spread, Residency.IN_STORE)
    return case


BUILDS = [
    ("service-x64", 14393),
    ("service-x64", 15063),
    ("service-x64", 18363),
    ("service-x64", 19045),
    ("service-x64", 22000),
    ("ftp-2003", 15063),
    ("ftp-2003", 17763),
    ("ftp-2003", 19045),
]


@pytest.mark.parametrize(("name", "build"), BUILDS)
def test_answers_are_the_same_when_the_pages_are_in_the_store(name: str, build: int, tmp_path: Path):
    check(compressed(name, build), answers(compressed(name, build), tmp_path, isf=X86 if name == "ftp-2003" else None))


def test_answers_are_the_same_when_pages_in_the_store_have_neighbours_in_other_states(tmp_path: Path):
    case = compressed("service-x64", 19045, mixed)
    check(case, answers(case, tmp_path))


def test_answers_are_the_same_with_the_mask_against_l1tf_and_a_store(tmp_path: Path):
    case = compressed("service-x64", 19045)
    case.machine = replace(case.machine, invalid_pte_mask=L1TF_MASK)
    check(case, answers(case, tmp_path))


KERNELS = [
    "03A098BC85D047028437D88E4C8BBC6B",
    "00F31FD82648C8ED1A4426DFFC56A424",
    "06564D3477822C7D97F04852CBD5AFD6",
    "0B0A89438BE7729EB33FD00A7D6FA816",
]


@pytest.mark.parametrize("guid", KERNELS)
def test_real_kernels_symbols_lead_to_the_store(guid: str, tmp_path: Path):
    """Windows 10 1607, 1809 and 2004, Windows 11 21H2: variables, flags and page-table entries are where these say."""
    directory = shared()
    if directory is None:
        pytest.skip("no directory with kernels' symbols beside the checkout")
    case = compressed("service-x64", 19041, mixed)
    check(case, answers(case, tmp_path, isf=directory / "isf" / "windows" / "ntkrnlmp.pdb" / f"{guid}-1.json.xz"))


@pytest.mark.parametrize(("name", "build"), [("service-x64", 22631), ("ftp-2003", 14393)])
def test_a_build_that_is_not_known_well_enough_is_refused_in_words(
    name: str, build: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    case = compressed(name, build)
    with caplog.at_level(logging.WARNING, "throwstack"):
        unhandled, stacks = answers(case, tmp_path, isf=X86 if name == "ftp-2003" else None)
    stuck = {thread.tid for thread in case.truth.stuck}
    assert not stuck & {row["TID"] for row in (*unhandled, *stacks)}
    assert f"the store's layout in build {build}" in caplog.text


def test_volatility_alone_does_not_read_these_pages(tmp_path: Path):
    case = compressed("service-x64", 19045)
    forge(case, tmp_path)
    process = next(one for one in case.machine.processes if one.pid == case.truth.stuck[0].pid)
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session:
        layer = session.process_layer(process.pid)
        for region in process.regions:
            with pytest.raises(exceptions.InvalidAddressException):
                layer.read(region.base, 1)
