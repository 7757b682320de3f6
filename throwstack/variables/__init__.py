# SPDX-License-Identifier: Apache-2.0
"""Values of parameters and local variables of frames: where the PDB says they are, with the registers of the walk.

`frame_values` is the entry: `frame_variables` gives the variables of a frame. `places` finds the bytes of a variable,
with the bases of `frame_registers`, and `value_text` puts them into words.
"""
