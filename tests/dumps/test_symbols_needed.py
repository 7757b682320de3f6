# SPDX-License-Identifier: Apache-2.0
"""The files that the stacks call for (`--symbols-needed`) and names from image files, on the reference case."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pefile
import pytest

from tests.conftest import Forge
from tests.forge.__main__ import forge, write_images
from tests.forge.cases import builders
from tests.forge.describe import Residency
from tests.forge.pdbs import write_pdbs
from tests.support.pdb_writer import Pdb
from tests.support.plugins_truth import expected_stacks, only
from tests.support.reference_pdbs import PDB, stack, stored, tables


@pytest.fixture(scope="module")
def case(forged: Forge) -> tuple[Path, list[dict[str, Any]]]:
    """The reference case: its directory, and the frames that its throwing stack has."""
    out, truth = forged("ftp-2003")
    return out, expected_stacks(truth)


@pytest.fixture
def pdbs() -> dict[str, Pdb]:
    """The PDBs of the case, to be altered."""
    return builders()["ftp-2003"][0]().pdbs


def test_the_files_that_the_stacks_call_for(case, pdbs, tmp_path):
    out, _ = case
    rows = stack(out, "--symbols-needed", more=("-o", str(tmp_path))).rows
    names = ["kernel32.pdb", "msvcr80.pdb", PDB, "ftpparsers.pdb"]
    lines = [f"{name},{pdbs[name].guid}1,1" for name in names]
    assert [row["Manifest"] for row in rows] == lines
    assert [row["Module"] for row in rows] == ["KERNEL32", "MSVCR80", "ftpsrvdata_pg", "FTPParsers"]
    assert "now from exports" in rows[1]["Why"]
    assert (tmp_path / "symbols-needed.txt").read_text(encoding="utf-8") == "".join(f"{line}\n" for line in lines)


@pytest.fixture(scope="module")
def without_exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference case with MSVCR80's read-only data, its exports among it, not in the dump; its files beside."""
    out = tmp_path_factory.mktemp("without-exports")
    case = builders()["ftp-2003"][0]()
    for process in case.machine.processes:
        for region in process.regions:
            if region.file and region.file.endswith("MSVCR80.dll"):
                section = pefile.PE(data=region.data, fast_load=True).sections[1]
                first = section.VirtualAddress // 0x1000
                pages = range(first, first + -(-section.Misc_VirtualSize // 0x1000))
                region.residency = dict.fromkeys(pages, Residency.PAGED_OUT)
    forge(case, out)
    write_images(out / "images", case.machine)
    return out


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory in which even root can write nothing")
def test_a_directory_that_cannot_be_written_costs_the_file_alone(case):
    out, _ = case
    done = stack(out, "--symbols-needed", more=("-o", "/proc"))
    assert done.status == 0
    assert any(row["Manifest"].startswith("ftpsrvdata_pg.pdb,") for row in done.rows)
    (line,) = [line for line in done.err.splitlines() if "symbols-needed" in line]
    assert "symbols-needed.txt cannot be written: " in line
    assert "Traceback" not in done.err


def test_images_are_called_for_where_the_dump_lacks_them(case, without_exports, tmp_path):
    _, frames = case
    plain = stack(without_exports).rows
    assert [row["RetAddr"] for row in plain] == [frame["RetAddr"] for frame in frames]
    assert plain[1]["Call Site"] == "MSVCR80+0x28e89"
    rows = stack(without_exports, "--symbols-needed", more=("-o", str(tmp_path))).rows
    (wanted,) = (row for row in rows if row["Module"] == "MSVCR80")
    (file,) = (without_exports / "images" / "MSVCR80.dll").glob("*/MSVCR80.dll")
    assert wanted["Manifest"] == f"MSVCR80.dll,{file.parent.name},1"
    assert wanted["Why"] == "its exports and PDB record cannot be read"


def test_names_come_from_an_image_file(case, without_exports):
    """And through it from the PDB, whose identity only the file has."""
    _, frames = case
    images = ("--image-path", str(without_exports / "images"))
    named = stack(without_exports, *images)
    assert only(named.rows, frames) == frames
    assert tables(named.rows, "MSVCR80") <= {"export", "export?"}
    rows = stack(without_exports, *images, "--symbol-path", str(without_exports / "pdb")).rows
    assert only(rows, frames) == frames
    assert tables(rows, "MSVCR80") <= {"pdb", "pdb?"}


def test_a_pdb_without_private_symbols_is_named_with_what_it_lacks(case, pdbs, tmp_path):
    """The manifest does not have it: the server that gave it has no other."""
    out, _ = case
    pdb = pdbs[PDB]
    pdb.procedures, pdb.is_stripped = [], True
    write_pdbs(tmp_path / "pdb", {PDB: pdb})
    options = ("--symbol-path", str(tmp_path / "pdb"), "--symbols-needed")
    rows = stack(out, *options, more=("-o", str(tmp_path))).rows
    why = {row["Module"]: row["Why"] for row in rows}
    assert why["ftpsrvdata_pg"] == "the PDB at hand has public symbols only: no source lines, no types, no variables"
    assert why["FTPParsers"] == "function names (now from an ISF table), source lines, frame data"
    assert PDB not in (tmp_path / "symbols-needed.txt").read_text(encoding="utf-8")


def test_files_at_hand_are_not_called_for(case, tmp_path):
    out, _ = case
    shutil.copytree(stored(out / "pdb", PDB).parents[1], tmp_path / "pdb" / PDB)
    options = ("--symbol-path", str(tmp_path / "pdb"), "--symbols-needed")
    rows = stack(out, *options, more=("-o", str(tmp_path))).rows
    assert [row["Module"] for row in rows] == ["KERNEL32", "MSVCR80", "FTPParsers"]
