# SPDX-License-Identifier: Apache-2.0
"""Unwind codes of real images equal what LIEF decodes: launchers that Python packages bring, and what the user has.

THROWSTACK_PE_DIRS lists further directories; `compare_with_lief` does the same outside the tests, for wheels too.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from tests.unwind.x64.pe_files import directories_of_environment, find_files

pytest.importorskip("lief")
from tests.unwind.x64.lief_codes import Comparison, compare


def _launchers() -> list[Path]:
    """Return the directories of installed packages that hold Windows launchers."""
    site = Path(sysconfig.get_paths()["purelib"])
    return [path for path in (site / "pip" / "_vendor" / "distlib", site / "setuptools") if path.is_dir()]


def test_unwind_codes_are_those_that_lief_decodes() -> None:
    total = Comparison()
    for path in find_files([*_launchers(), *directories_of_environment()]):
        compare(path, total)
    if not total.functions:
        pytest.skip("no x64 image here: neither a launcher of pip or setuptools nor one in THROWSTACK_PE_DIRS")
    assert not total.differences
    assert total.codes > total.functions
