# SPDX-License-Identifier: Apache-2.0
"""Exceptions of managed code: 0xE0434352 ("CCR", CLR 4 and .NET) and 0xE0434F4D ("COM", CLR 1 to 3.5).

The first parameter is the exception's HRESULT. An exception of CLR 4 has five parameters; the last is the base of the
runtime module that threw. The class of the exception is looked up by the HRESULT, in the runtime's table of classes.
Several classes may have the same HRESULT.
"""

from __future__ import annotations

from throwstack.exceptions.model import ExceptionKind, ExceptionText, RaisedException
from throwstack.exceptions.status import hresult, managed_exceptions

CLR = 0xE0434352
CLR_OLD = 0xE0434F4D
_RUNTIME_PARAMETER = 4


def clr_exception(raised: RaisedException) -> ExceptionText:
    """Describe a managed exception by its HRESULT: the class or classes that have it, and the runtime that threw."""
    if not raised.record.parameters:
        return ExceptionText(ExceptionKind.CLR, "CLR exception", details=("the record does not carry its HRESULT",))
    code = raised.parameter(0) & 0xFFFFFFFF
    classes = managed_exceptions(code)
    details = []
    if len(classes) > 1:
        details.append(f"classes with this HRESULT: {', '.join(classes)}")
    if raised.record.code == CLR and len(raised.record.parameters) > _RUNTIME_PARAMETER:
        runtime = raised.images.find(raised.parameter(_RUNTIME_PARAMETER))
        if runtime is not None:
            details.append(f"thrown by the runtime {raised.place(runtime.base).removesuffix('+0x0')}")
    thrown = classes[0] if len(classes) == 1 else ""
    name = " or ".join(item.rpartition(".")[2] if index else item for index, item in enumerate(classes[:3]))
    title = f"CLR exception {name}, HRESULT {hresult(code)}" if name else f"CLR exception, HRESULT {hresult(code)}"
    return ExceptionText(ExceptionKind.CLR, title, thrown_type=thrown, hresult=code, details=tuple(details))
