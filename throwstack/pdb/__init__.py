# SPDX-License-Identifier: Apache-2.0
"""Reads PDB files with the library `symbolic`: identity, functions, lines, inlined functions and frame data.

What was read is kept in the user's cache directory.
"""
