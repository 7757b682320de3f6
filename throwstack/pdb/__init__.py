# SPDX-License-Identifier: Apache-2.0
"""Reads PDB files: identity, functions, lines, inlined functions, types, variables and frame data.

From the ground up: `msf` has the streams of a file; `dbi`, `info_stream`, `string_table` and `sections` say what is in
which; `module_symbols`, `lines` and `inline_sites` read a module (an object file); `publics`, `name_hash` and
`function_names` read the symbols of all; `type_stream` and `types` read types, and `pdb_frames` the frames of x86.
`pdb_file` puts them together, and `pdb_symbols` finds the PDBs of images.
"""
