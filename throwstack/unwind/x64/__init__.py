# SPDX-License-Identifier: Apache-2.0
"""Unwinding x64 stacks by the unwind data of their images.

From the ground:

- `unwind_info` decodes UNWIND_INFO, `functions` finds a function by address and follows its chain of entries (the
  table of RUNTIME_FUNCTIONs is the image's: `throwstack.images.function_table`). `inverted_table` finds that table for
  images without readable headers.
- `unwind_plan` says where a frame keeps its caller's registers, by the unwind codes. `epilogue` says it by the
  instructions, for a frame that was interrupted in its epilogue. `plan_cache` chooses between the two once per address.
- `follow_to_return` and `guessed_caller` are for code without unwind data.
- `ntdll_functions` recognizes the start of a thread and the exception dispatcher, `unwinder` takes the steps.
"""

from __future__ import annotations

from throwstack.unwind.x64.inverted_table import InvertedTable
from throwstack.unwind.x64.unwinder import Unwinder

__all__ = ["InvertedTable", "Unwinder"]
