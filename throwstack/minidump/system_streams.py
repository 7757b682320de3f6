# SPDX-License-Identifier: Apache-2.0
"""The streams about the machine and the process as a whole: SystemInfo, MiscInfo and the comment.

MINIDUMP_SYSTEM_INFO and MINIDUMP_MISC_INFO_5 of minidumpapiset.h.
"""

from __future__ import annotations

import struct

from throwstack.core.registers import Arch
from throwstack.minidump.dumped import DumpedProcess, DumpedSystem, XStateLayout
from throwstack.minidump.minidump_file import MinidumpFile, Placement

_PROCESSOR = {Arch.X86: 0, Arch.X64: 9}
"""PROCESSOR_ARCHITECTURE_INTEL and _AMD64."""
_PLATFORM_NT = 2
_SYSTEM = struct.Struct("<HHHBBIIIIIHH24s")
_X86_CPU = struct.Struct("<12sIII")
_X64_CPU = struct.Struct("<QQ8x")

_PROCESS_ID, _PROCESS_TIMES, _BUILD_STRING = 0x1, 0x2, 0x100
_MISC_HEAD = struct.Struct("<IIIIII")
_BUILD_AT, _BUILD_SIZE = 232, 520
"""Offset and size in bytes of BuildString, which MINIDUMP_MISC_INFO_4 appends to MINIDUMP_MISC_INFO_3."""
_SIZE_4, _SIZE_5 = 832, 1364
_XSTATE_HEAD = struct.Struct("<IIQ")
_XSTATE_FEATURE = struct.Struct("<II")
_XSTATE_SIZE, _XSTATE_FEATURES = 528, 64
_FILETIME_1970, _SECOND = 116444736000000000, 10_000_000
MAX_COMMENT = 1 << 14
"""The most characters of the comment."""


def system_info(file: MinidumpFile, system: DumpedSystem) -> Placement:
    """Write the stream SystemInfo."""
    if system.arch is Arch.X86:
        cpu = _X86_CPU.pack(system.vendor[:12], system.signature, system.feature_bits, 0)
    else:
        cpu = _X64_CPU.pack(*system.features)
    service_pack = file.string(system.service_pack)
    major, minor, build = system.version
    return file.append(
        _SYSTEM.pack(
            *(_PROCESSOR[system.arch], system.level & 0xFFFF, system.revision & 0xFFFF),
            *(min(system.processors, 0xFF), system.product_type & 0xFF),
            *(major & 0xFFFFFFFF, minor & 0xFFFFFFFF, build & 0xFFFFFFFF, _PLATFORM_NT),
            *(service_pack, system.suite_mask & 0xFFFF, 0, cpu),
        )
    )


def misc_info(file: MinidumpFile, process: DumpedProcess) -> Placement:
    """Write the stream MiscInfo: MINIDUMP_MISC_INFO_5 if the layout of XSAVE areas is known, else …_4."""
    size = _SIZE_4 if process.xstate is None else _SIZE_5
    flags = _PROCESS_ID | (_PROCESS_TIMES if process.created else 0)
    build = process.system.build_string.encode("utf-16-le", "replace")[: _BUILD_SIZE - 2]
    data = bytearray(size)
    _MISC_HEAD.pack_into(
        *(data, 0, size, flags | (_BUILD_STRING if build else 0), process.pid & 0xFFFFFFFF),
        *(unix_time(process.created), seconds(process.user_time), seconds(process.kernel_time)),
    )
    data[_BUILD_AT : _BUILD_AT + len(build)] = build
    if process.xstate is not None:
        _pack_xstate(data, process.xstate)
    return file.append(bytes(data))


def comment(text: str) -> bytes:
    """Return the stream CommentStreamW: the text, shortened to `MAX_COMMENT`, with a zero after it."""
    data = text.encode("utf-16-le", "replace")
    limit = 2 * MAX_COMMENT
    return (data if len(data) <= limit else data[: limit - 2] + "…".encode("utf-16-le")) + b"\0\0"


def unix_time(filetime: int) -> int:
    """Return a FILETIME in seconds since 1970, cut to the 32 bits that a minidump has; 0 if it is before that."""
    return min(max(filetime - _FILETIME_1970, 0) // _SECOND, 0xFFFFFFFF)


def seconds(duration: int) -> int:
    """Return a duration of units of 100 ns in seconds, at most what 32 bits can hold."""
    return min(max(duration, 0) // _SECOND, 0xFFFFFFFF)


def _pack_xstate(data: bytearray, layout: XStateLayout) -> None:
    """Put XSTATE_CONFIG_FEATURE_MSC_INFO at the end of MINIDUMP_MISC_INFO_4."""
    _XSTATE_HEAD.pack_into(data, _SIZE_4, _XSTATE_SIZE, layout.size & 0xFFFFFFFF, layout.enabled & (1 << 64) - 1)
    at = _SIZE_4 + _XSTATE_HEAD.size
    for index, (offset, size) in enumerate(layout.features[:_XSTATE_FEATURES]):
        _XSTATE_FEATURE.pack_into(data, at + index * _XSTATE_FEATURE.size, offset & 0xFFFFFFFF, size & 0xFFFFFFFF)
