# SPDX-License-Identifier: Apache-2.0
"""The stream Exception: the record of the exception, and the CONTEXT at the throw (MINIDUMP_EXCEPTION_STREAM).

A record of 32 bits is written with 64-bit members whose high halves are zero. The chain of records, which the member
ExceptionRecord points to, is in the memory that is written.
"""

from __future__ import annotations

import struct

from throwstack.core.exception_record import MAX_PARAMETERS
from throwstack.minidump.dumped import DumpedException
from throwstack.minidump.minidump_file import NOWHERE, MinidumpFile, Placement

_STREAM = struct.Struct("<IIIIQQII15QII")


def exception_stream(file: MinidumpFile, exception: DumpedException) -> Placement:
    """Write the stream Exception, with its CONTEXT before it."""
    record, context = exception.record, exception.context
    where = NOWHERE if context is None else file.append(context.data, alignment=16)
    parameters = record.parameters[:MAX_PARAMETERS]
    return file.append(
        _STREAM.pack(
            *(exception.tid & 0xFFFFFFFF, 0, record.code, record.flags, record.nested, record.address),
            *(len(parameters), 0, *parameters, *[0] * (MAX_PARAMETERS - len(parameters)), *where),
        )
    )
