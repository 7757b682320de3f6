# SPDX-License-Identifier: Apache-2.0
"""Reads PDB files with symbolic (identity, functions, lines, inlined functions, frame data) and keeps the result."""
