# SPDX-License-Identifier: Apache-2.0
"""Unwinds x64 stacks by the unwind data of the images whose code is on them.

The modules, lowest layer first:

- `unwind_info` decodes UNWIND_INFO, `functions` finds a function by address and follows its chain of entries (the
  table of RUNTIME_FUNCTIONs is the image's: `throwstack.images.function_table`). `inverted_table` finds that table for
  images without readable headers, and if that does not, `table_by_contents`.
- `dynamic_tables` finds the unwind data that a process has registered for generated code, outside the images.
- `unwind_plan` finds out from the unwind codes where a frame keeps its caller's registers. `epilogue` finds it out from
  the instructions, for a frame that was interrupted in its epilogue. `plan_cache` chooses between the two and remembers
  the result for each address. `apply_plan` reads the caller's registers.
- `without_unwind_data` finds the caller of code without unwind data: by its instructions (`follow_to_return`), or by a
  guess (`guessed_caller`). `bad_jump` says whether a call has led to where no code is.
- `ntdll_functions` recognizes the start of a thread and the exception dispatcher.
- `unwinder` finds the caller of a frame with all of these, and `traced` says which rule it applied.
"""

from __future__ import annotations

from throwstack.unwind.x64.dynamic_tables import DynamicTables
from throwstack.unwind.x64.inverted_table import InvertedTable
from throwstack.unwind.x64.unwinder import Unwinder

__all__ = ["DynamicTables", "InvertedTable", "Unwinder"]
