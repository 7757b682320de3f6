# SPDX-License-Identifier: Apache-2.0
"""The stream HandleData: the handles of the process (MINIDUMP_HANDLE_DATA_STREAM, MINIDUMP_HANDLE_DESCRIPTOR)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from throwstack.minidump.dumped import DumpedHandle
from throwstack.minidump.minidump_file import MinidumpFile, Placement

_HEAD = struct.Struct("<IIII")
_HANDLE = struct.Struct("<QIIIIII")
_WORD = 0xFFFFFFFF


def handle_data(file: MinidumpFile, handles: Sequence[DumpedHandle]) -> Placement:
    """Write the stream HandleData. A type or name that is not known has the RVA 0."""
    parts = [_HEAD.pack(_HEAD.size, _HANDLE.size, len(handles), 0)]
    for handle in handles:
        names = (file.string(text) if text else 0 for text in (handle.type, handle.name))
        numbers = handle.attributes, handle.access, handle.handles, handle.pointers
        parts.append(_HANDLE.pack(handle.value, *names, *(number & _WORD for number in numbers)))
    return file.append(b"".join(parts))
