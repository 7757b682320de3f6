# SPDX-License-Identifier: Apache-2.0
"""Machines on which no function of the system's DLLs has a name: the dispatch shows on the stack all the same.

The pages with the exports of one process are absent, and there are no symbols but the kernel's.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.forge.__main__ import forge
from tests.forge.cases import builders
from tests.support.one_process import PAGE, survey
from tests.support.patched_memory import opened
from tests.support.volatility_session import open_dump
from throwstack.images.image import Image
from throwstack.volatility.processes import ProcessReader

_SYSTEM = {"ntdll", "kernel32", "kernelbase"}


def export_pages(image: Image) -> range:
    assert image.headers is not None
    rva, size = image.headers.export_directory
    return range(image.base + rva & -PAGE, image.base + rva + size, PAGE)


@pytest.mark.parametrize(
    ("case", "undecided"),
    [
        ("handlers-x64", 1),  # the C++ runtime unwinds with a record of its own: only the name of RtlUnwindEx tells it
        ("handlers-x86", 0),
        ("decoys-x64", 0),
        ("decoys-x86", 0),
    ],
)
def test_a_dispatch_is_found_without_any_name(case: str, undecided: int, tmp_path: Path):
    made = builders()[case][0]()
    forge(made, tmp_path)
    for file in (tmp_path / "isf" / "windows").iterdir():
        if not file.name.startswith("ntkr"):
            shutil.rmtree(file)
    ((pid, _), *_) = made.truth.quiet
    stuck = {(item.pid, item.tid): item for item in made.truth.stuck if item.pid == pid}
    with open_dump(tmp_path / "MEMORY.DMP", tmp_path / "isf") as session:
        process = ProcessReader(opened(session)).open(session.processes()[pid])
        images = [image for image in process.program.images if image.module.label.lower() in _SYSTEM]
        answer = survey(session, pid, {page: None for image in images for page in export_pages(image)})
    rows = answer.of(pid)
    assert stuck.keys() <= rows.keys()
    assert len(rows) == len(stuck) + undecided
    for key, item in stuck.items():
        _, _, exceptions, *_ = rows[key]
        assert exceptions == ((item.code, item.address, item.context),)
    assert answer.names(pid)
