# SPDX-License-Identifier: Apache-2.0
"""The fail-fast of an application that .NET's NativeAOT compiled: 0xC0000409 with the code 0x48 and a crash buffer.

`throwstack.managed.crash_buffer` says what is in the buffer. No process of NativeAOT was at hand: what is read follows
the runtime's source alone.
"""

from __future__ import annotations

from dataclasses import replace

from throwstack.core.memory import MemoryUnreadable
from throwstack.exceptions.clr import managed_details, managed_title, quoted_message
from throwstack.exceptions.model import ExceptionKind, ExceptionText, ManagedThrow, RaisedException
from throwstack.exceptions.status import hresult
from throwstack.managed.crash_buffer import CrashReason, has_crash_buffer, read_crash_buffer
from throwstack.managed.runtime_memory import StructureError

_HRESULT = 1
_WORDS = {
    CrashReason.UNKNOWN: "",
    CrashReason.UNHANDLED_EXCEPTION: "",
    CrashReason.ENVIRONMENT_FAIL_FAST: "Environment.FailFast",
    CrashReason.INTERNAL_FAIL_FAST: "fail-fast of the runtime itself",
}


def native_aot_failure(raised: RaisedException) -> ExceptionText | None:
    """Describe a fail-fast of NativeAOT by its crash buffer; None if the record is that of another fail-fast."""
    parameters = raised.record.parameters
    if not has_crash_buffer(parameters):
        return None
    code = raised.parameter(_HRESULT) & 0xFFFFFFFF
    plain = ExceptionText(
        ExceptionKind.FAIL_FAST, f".NET NativeAOT fail-fast, HRESULT {hresult(code)}, type not readable", hresult=code
    )
    try:
        buffer = read_crash_buffer(raised.memory, parameters)
    except (MemoryUnreadable, StructureError) as error:
        return replace(plain, details=(f"the crash buffer: {error}",))
    words, found = _WORDS[buffer.reason], buffer.exception
    said = f"{words} {quoted_message(buffer.message)}" if words and buffer.message else words
    runtime = f".NET NativeAOT {buffer.runtime_version}".rstrip()
    if found is None:
        title = said or plain.title.removesuffix(", type not readable")
        return replace(plain, title=title, message=buffer.message, details=(f"runtime: {runtime}",))
    title = managed_title(found)
    return ExceptionText(
        ExceptionKind.FAIL_FAST,
        f"{said}: {title}" if said else title,
        thrown_type=found.type_name,
        message=found.message or buffer.message,
        hresult=found.hresult if found.hresult is not None else code,
        details=tuple(managed_details(ManagedThrow(found, runtime=runtime), found)),
        managed=found,
    )
