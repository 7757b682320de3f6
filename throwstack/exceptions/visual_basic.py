# SPDX-License-Identifier: Apache-2.0
"""Visual Basic 5 and 6 raise each run-time error as FLOAT_INEXACT_RESULT.

FLOAT_INEXACT_RESULT is 0xC000008F, a floating-point trap. Example: `CInt("x")` without an error handler raises it. The
processor can raise it, too, but programs leave this trap off. So if the Visual Basic runtime (such as msvbvm60.dll) is
loaded, the exception is taken for a run-time error of Visual Basic. The record does not contain the number of the
run-time error.
"""

from __future__ import annotations

from throwstack.core.registers import Arch
from throwstack.exceptions.model import ExceptionKind, ExceptionText, RaisedException

FLOAT_INEXACT_RESULT = 0xC000008F


def float_inexact(raised: RaisedException) -> ExceptionText:
    """Describe a FLOAT_INEXACT_RESULT, which Visual Basic 5 and 6 raise for each of their run-time errors.

    If the Visual Basic runtime is not loaded, it is a floating-point trap.
    """
    is_basic = any(image.module.label.lower().startswith("msvbvm") for image in raised.images)
    if is_basic and raised.arch is Arch.X86:
        return ExceptionText(
            ExceptionKind.VISUAL_BASIC,
            "Visual Basic run-time error",
            details=("raised as FLOAT_INEXACT_RESULT; the Visual Basic runtime is loaded",),
        )
    return ExceptionText(ExceptionKind.HARDWARE_FAULT, "FLOAT_INEXACT_RESULT")
