# SPDX-License-Identifier: Apache-2.0
"""Unwinds 32-bit x86 stacks, with FrameData or FPO records of PDBs or from the code alone.

x86 images have no unwind data. So several rules (ways to find a frame's caller) are tried for each frame, and the
caller that is best supported is taken. The modules, each below those that use it:

- `decode` decodes instructions. `code` says which addresses are code, and what the targets of calls and jumps are.
- `symbolic_state` and `symbolic_execution` describe the effect of an instruction on registers and stack words whose
  values are not known. `control_flow` uses them to follow code on all branches.
- `stack_adjustment` and `callees` find what a call does to the stack pointer and the registers of its caller.
- `call_frame` defines the input and the output of every rule: `Place` (the registers of a frame) and `Caller` (the
  return address and the registers of the function that called it).
- `saved_registers` computes the registers at a function's start from those that are known at a later instruction.
- The rules: `prologue` (from the function's start), `rest_of_function` (to its `ret`), `frame_data` (records of PDBs),
  `stack_scan` (the next word that can be a return address), and in `rules` the frame pointer, exception registrations
  and calls of wild pointers. `interrupted_context` and `callback` are for the dispatchers of ntdll that the kernel
  enters, which do not end with a `ret`.
- `nearer_caller` is for a thread that runs where no code is, and `switched_stack` for a caller on another stack.
- `function_starts` guesses where functions begin. `return_address` grades how well a stack word serves as the return
  address of a frame.
- `candidates` scores the callers that the rules find, `rules` applies all rules to one frame, and `unwinder` walks the
  stack frame by frame.
"""

from throwstack.unwind.x86.unwinder import Unwinder

__all__ = ["Unwinder"]
