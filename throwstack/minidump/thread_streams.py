# SPDX-License-Identifier: Apache-2.0
"""The streams about threads: ThreadList, ThreadInfoList and ThreadNames.

MINIDUMP_THREAD, MINIDUMP_THREAD_INFO and MINIDUMP_THREAD_NAME of minidumpapiset.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

from throwstack.core.registers import Arch
from throwstack.minidump.dumped import DumpedThread, Span
from throwstack.minidump.minidump_file import NOWHERE, MinidumpFile, Placement
from throwstack.minidump.thread_context import empty_context

_THREAD = struct.Struct("<IIIIQQIIII")
_INFO_HEAD = struct.Struct("<III")
_INFO = struct.Struct("<IIIIQQQQQQ")
_NAME = struct.Struct("<IQ")
_WORD, _LONG = 0xFFFFFFFF, (1 << 64) - 1

Placed = Callable[[Span], Placement]
"""Returns where the memory of a range is in the file; `NOWHERE` if it is not there, or after 4 GiB."""


def write_contexts(file: MinidumpFile, arch: Arch, threads: Sequence[DumpedThread]) -> dict[int, Placement]:
    """Write the CONTEXTs of threads, and return their locations by index.

    A thread without registers has a CONTEXT whose ContextFlags name no register: readers expect one of each thread,
    and udmp-parser takes no dump in which one is missing.
    """
    none = file.append(empty_context(arch), alignment=16)
    return {
        index: none if thread.context is None else file.append(thread.context.data, alignment=16)
        for index, thread in enumerate(threads)
    }


def thread_list_size(threads: Sequence[DumpedThread]) -> int:
    """Return the size of the stream ThreadList in bytes."""
    return 4 + len(threads) * _THREAD.size


def thread_list(
    threads: Sequence[DumpedThread],
    contexts: Mapping[int, Placement],
    stacks: Mapping[int, Span],
    placed: Placed,
) -> bytes:
    """Return the stream ThreadList. `contexts` and `stacks` (the readable part of each stack) are by index."""
    parts = [struct.pack("<I", len(threads))]
    for index, thread in enumerate(threads):
        stack = stacks.get(index)
        start, where = (0, NOWHERE) if stack is None else (stack.start, placed(stack))
        numbers = thread.tid, thread.suspend_count, thread.priority_class, thread.priority
        parts.append(
            _THREAD.pack(*(number & _WORD for number in numbers), thread.teb & _LONG, start, *where, *contexts[index])
        )
    return b"".join(parts)


def thread_info_list(file: MinidumpFile, threads: Sequence[DumpedThread]) -> Placement:
    """Write the stream ThreadInfoList: times and start addresses."""
    parts = [_INFO_HEAD.pack(_INFO_HEAD.size, _INFO.size, len(threads))]
    for thread in threads:
        times = thread.created, thread.exited, thread.kernel_time, thread.user_time, thread.start, thread.affinity
        parts.append(
            _INFO.pack(thread.tid & _WORD, 0, 0, thread.exit_status & _WORD, *(value & _LONG for value in times))
        )
    return file.append(b"".join(parts))


def thread_names(file: MinidumpFile, threads: Sequence[DumpedThread]) -> Placement:
    """Write the stream ThreadNames, of the threads that have a name."""
    named = [(thread.tid & _WORD, file.string(thread.name)) for thread in threads if thread.name]
    return file.append(struct.pack("<I", len(named)) + b"".join(_NAME.pack(*name) for name in named))
