# SPDX-License-Identifier: Apache-2.0
"""PDB files: identity, functions, lines, inlined functions and frame data, read with symbolic and kept for later."""
