# SPDX-License-Identifier: Apache-2.0
"""Unwinding of 32-bit x86 stacks: with FrameData or FPO records, or from the code alone."""

from throwstack.unwind.x86.unwinder import Unwinder

__all__ = ["Unwinder"]
