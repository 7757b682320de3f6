# SPDX-License-Identifier: Apache-2.0
"""A PDB in the form of Visual C++ 2005 and 2008's debug builds, made by the tests' writer.

Those have no stream of ids: stream 4 is the linker's record of its command line (`/LinkInfo`), and the info stream has
no word that says otherwise. symbolic takes stream 4 for ids and refuses the file. All six such PDBs that were found are
refused so, with these words; so the made one is of their form.
"""

from __future__ import annotations

import struct

import pytest

pytest.importorskip("purepdb", reason="purepdb is not installed (it needs Python 3.11)")
from tests.real_pdbs import symbolic_peer
from tests.real_pdbs.llvm_peer import llvm_chains, tool
from tests.real_pdbs.our_reader import our_chains
from tests.real_pdbs.peer_frames import PeerFailed, PeerFrame
from tests.real_pdbs.purepdb_facts import PdbFacts
from tests.support.pdb_writer import Pdb, Procedure, Public

GUID = "0123456789ABCDEF00112233445566AA"
WORDS = b'd:\\stackoverflow\0"C:\\Program Files (x86)\\link.exe" /DEBUG\0'
LINK_INFO = struct.pack("<6I", 24 + len(WORDS), 2, 24, 41, 41, 41) + WORDS
SOURCE = r"d:\stackoverflow\main.cpp"


@pytest.fixture
def old(tmp_path):
    procedure = Procedure("wmain", 0x1010, 0x40, [(0, SOURCE, 5), (0x10, SOURCE, 7)], ("int",))
    path = tmp_path / "old.pdb"
    path.write_bytes(Pdb(GUID, procedures=[procedure], publics=[Public("_f@4", 0x1060)], stream_4=LINK_INFO).to_bytes())
    return path


def test_our_reader_names_its_functions_and_lines(old):
    assert our_chains(old, [0x1018, 0x1024]) == [(PeerFrame("wmain", SOURCE, 5),), (PeerFrame("wmain", SOURCE, 7),)]


@pytest.mark.skipif(tool("llvm-symbolizer") is None, reason="llvm-symbolizer is not installed")
def test_so_does_llvm(old, tmp_path):
    assert llvm_chains(PdbFacts(old), [0x1018], tmp_path) == [(PeerFrame("wmain", SOURCE, 5),)]


@pytest.mark.skipif(not symbolic_peer.is_installed(), reason="symbolic is not installed")
def test_symbolic_refuses_it_as_it_refuses_real_ones(old):
    with pytest.raises(PeerFailed, match="header size is impossibly small"):
        symbolic_peer.symbolic_run(old, [0x1018])
