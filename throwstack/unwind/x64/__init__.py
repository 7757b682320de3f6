# SPDX-License-Identifier: Apache-2.0
"""Unwinding x64 stacks by the unwind data of their images.

From the ground: `unwind_info` decodes, `runtime_functions` and `functions` look up (`inverted_table` for images without
headers), `plan` and `epilogue` say where a frame keeps its caller's registers (`plans` chooses), `guesses` does without
unwind data, `unwinder` walks.
"""

from __future__ import annotations

from throwstack.unwind.x64.inverted_table import InvertedTable
from throwstack.unwind.x64.unwinder import Unwinder

__all__ = ["InvertedTable", "Unwinder"]
