# SPDX-License-Identifier: Apache-2.0
"""Values of parameters and local variables of frames: where the PDB says they are, with the registers of the walk.

`frame_values` is the entry: `frame_variables` gives the variables of a frame. `places` finds the bytes of a variable,
with the bases of `frame_registers`, and `value_text` puts them into words. `interrupted_code` and `slot_reuse` look
into the code for what a PDB does not say: an instruction that stopped half-way, a place that was given to something
else.
"""
