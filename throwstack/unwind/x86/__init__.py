# SPDX-License-Identifier: Apache-2.0
"""Unwinds 32-bit x86 stacks, with FrameData or FPO records of PDBs or from the code alone.

x86 images have no unwind data, so that several rules answer for each frame and the best answer is taken. From the
ground:

- `decode` decodes instructions, `code` knows images and symbols: what is code, where calls and jumps lead.
- `symbolic_state` and `symbolic_execution` say what an instruction does to registers and stack words whose values are
  not known, `control_flow` follows code with them, all branches.
- `stack_adjustment` and `callees` say what a call does to the stack pointer and the registers of its caller.
- `call_frame` has what every rule takes and gives: the `Place` of a frame and its `Caller`.
- `saved_registers` finds the registers at a function's start from those that are known later.
- The rules: `prologue` (from the function's start), `rest_of_function` (to its `ret`), `frame_data` (records of PDBs),
  `stack_scan` (the next word that can be a return address), and in `rules` the frame pointer, exception registrations
  and calls of wild pointers. `interrupted_context` and `callback` are for frames that no `ret` leaves.
- `function_starts` guesses where functions begin, `return_address` judges how well a word fits as a return address.
- `candidates` weighs the answers, `rules` asks all of them for one frame, `unwinder` walks.
"""

from throwstack.unwind.x86.unwinder import Unwinder

__all__ = ["Unwinder"]
