# SPDX-License-Identifier: Apache-2.0
"""Visual Basic 5 and 6 raise each run-time error as FLOAT_INEXACT_RESULT.

Example: `CInt("x")` without an error handler raises 0xC000008F. A floating-point unit raises it too, but programs leave
that trap off. So where the Visual Basic runtime (such as msvbvm60.dll) is loaded, the code counts as one of its errors.
The record does not have the number of the error.
"""

from __future__ import annotations

from throwstack.core.registers import Arch
from throwstack.exceptions.model import ExceptionKind, ExceptionText, RaisedException

FLOAT_INEXACT_RESULT = 0xC000008F


def float_inexact(raised: RaisedException) -> ExceptionText:
    """Describe a floating-point trap, which Visual Basic 5 and 6 also raise for each of their run-time errors."""
    is_basic = any(image.module.label.lower().startswith("msvbvm") for image in raised.images)
    if is_basic and raised.arch is Arch.X86:
        return ExceptionText(
            ExceptionKind.VISUAL_BASIC,
            "Visual Basic run-time error",
            details=("raised as FLOAT_INEXACT_RESULT; the Visual Basic runtime is loaded",),
        )
    return ExceptionText(ExceptionKind.HARDWARE_FAULT, "FLOAT_INEXACT_RESULT")
