# SPDX-License-Identifier: Apache-2.0
"""Real PDBs, fetched when the tests run, and what other readers say about them. `make test-pdbs` reads all of them."""
