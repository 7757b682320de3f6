# SPDX-License-Identifier: Apache-2.0
"""Writes a minidump: all streams, in an order in which each part is known when it is written.

The memory of a full minidump may be longer than 4 GiB, which RVAs cannot reach over. If it may be, room for what is
known only after it (Memory64List, MemoryInfoList, the comment) is left before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from throwstack.core.memory import PAGE_SIZE
from throwstack.minidump.dumped import DumpedProcess, Span
from throwstack.minidump.exception_stream import exception_stream
from throwstack.minidump.full_memory import FullMemory
from throwstack.minidump.handle_stream import handle_data
from throwstack.minidump.memory_lists import (
    DESCRIPTOR64_SIZE,
    HEADS_SIZE,
    INFO_SIZE,
    WrittenMemory,
    memory64_list,
    memory_info_list,
    memory_list,
)
from throwstack.minidump.minidump_file import MinidumpFile, StreamType
from throwstack.minidump.module_streams import module_list, unloaded_module_list
from throwstack.minidump.small_memory import Picked
from throwstack.minidump.system_streams import MAX_COMMENT, comment, misc_info, system_info, unix_time
from throwstack.minidump.thread_streams import (
    thread_info_list,
    thread_list,
    thread_list_size,
    thread_names,
    write_contexts,
)

_FLAGS = 0x4 | 0x20 | 0x100 | 0x800 | 0x1000
"""MINIDUMP_TYPE: handle data, unloaded modules, process and thread data, memory information, thread information."""
_FULL, _INDIRECT = 0x2, 0x40
_SMALL_ENOUGH = 0xE0000000
"""If the memory ends below this offset for certain, all that comes after it can be there."""


@dataclass(frozen=True, slots=True)
class Written:
    """The size of a minidump, and sentences on what was left out of it."""

    size: int
    left_out: tuple[str, ...]


def write_small(out: BinaryIO, process: DumpedProcess, picked: Picked) -> Written:
    """Write a minidump with chosen memory. Raises OSError, and `TooLarge`."""
    file = _opened(out, process, _FLAGS | _INDIRECT)
    rest = _Rest(file, process, picked.stacks)
    written = WrittenMemory(file.align(16))
    for span in picked.spans:
        written.add(span.start, span.end - span.start)
        file.append_parts(_pages(process.page, span))
    rest.add_list(StreamType.MEMORY_LIST, memory_list(written))
    left_out = []
    if picked.absent:
        left_out.append(f"{picked.absent:,} bytes of stacks and data that are not in the image")
    if picked.is_cut:
        left_out.append("stacks or data beyond the limit of a small minidump")
    return rest.finish(written, left_out)


def write_full(out: BinaryIO, process: DumpedProcess, memory: FullMemory, stacks: dict[int, Span]) -> Written:
    """Write a minidump with all readable memory. `stacks` are the readable parts of stacks, by index of the thread."""
    file = _opened(out, process, _FLAGS | _FULL)
    rest = _Rest(file, process, stacks)
    size, ranges = memory.bound()
    if file.end + size > _SMALL_ENOUGH:
        infos = 2 * ranges + len(process.regions) + 1
        rest.leave_room(StreamType.MEMORY64_LIST, HEADS_SIZE + ranges * DESCRIPTOR64_SIZE)
        rest.leave_room(StreamType.MEMORY_INFO_LIST, HEADS_SIZE + infos * INFO_SIZE)
        rest.leave_room(StreamType.COMMENT_W, 2 * MAX_COMMENT + 2)
    written = WrittenMemory(file.align(PAGE_SIZE))
    file.append_parts(memory.parts(written))
    rest.add_list(StreamType.MEMORY64_LIST, memory64_list(written))
    left_out = []
    if memory.absent:
        left_out.append(f"{memory.absent:,} bytes that are not in the image")
    if memory.untouched:
        left_out.append(f"{memory.untouched:,} committed bytes that have no page tables")
    if memory.is_cut:
        left_out.append("memory beyond what a dump of this size can hold")
    return rest.finish(written, left_out)


def _opened(out: BinaryIO, process: DumpedProcess, flags: int) -> MinidumpFile:
    """Begin the file with the streams that need no memory."""
    file = MinidumpFile(out, len(StreamType), time=unix_time(process.time), flags=flags)
    file.add_stream(StreamType.SYSTEM_INFO, system_info(file, process.system))
    file.add_stream(StreamType.MISC_INFO, misc_info(file, process))
    if process.exception is not None:
        file.add_stream(StreamType.EXCEPTION, exception_stream(file, process.exception))
    file.add_stream(StreamType.MODULE_LIST, module_list(file, process.modules))
    if process.unloaded:
        file.add_stream(StreamType.UNLOADED_MODULE_LIST, unloaded_module_list(file, process.unloaded))
    if process.handles:
        file.add_stream(StreamType.HANDLE_DATA, handle_data(file, process.handles))
    file.add_stream(StreamType.THREAD_INFO_LIST, thread_info_list(file, process.threads))
    if any(thread.name for thread in process.threads):
        file.add_stream(StreamType.THREAD_NAMES, thread_names(file, process.threads))
    return file


class _Rest:
    """The streams that are written after the memory, or into room that was left for them before it."""

    def __init__(self, file: MinidumpFile, process: DumpedProcess, stacks: dict[int, Span]) -> None:
        self._file = file
        self._process = process
        self._stacks = stacks
        self._contexts = write_contexts(file, process.system.arch, process.threads)
        self._rooms = {StreamType.THREAD_LIST: file.reserve(thread_list_size(process.threads))}

    def leave_room(self, kind: StreamType, size: int) -> None:
        self._rooms[kind] = self._file.reserve(size)

    def add_list(self, kind: StreamType, parts: Iterable[bytes]) -> None:
        rva = self._rooms.get(kind)
        location = self._file.append_list(parts) if rva is None else self._file.fill(rva, parts)
        self._file.add_stream(kind, location)

    def finish(self, written: WrittenMemory, left_out: list[str]) -> Written:
        process = self._process
        threads = thread_list(process.threads, self._contexts, self._stacks, written.placed)
        self.add_list(StreamType.THREAD_LIST, [threads])
        if process.regions:
            self.add_list(StreamType.MEMORY_INFO_LIST, memory_info_list(process.regions, written))
        said = "".join(f"left out: {what}\n" for what in left_out)
        self.add_list(StreamType.COMMENT_W, [comment(process.comment + said)])
        return Written(self._file.finish(), tuple(left_out))


def _pages(page: Callable[[int], bytes | None], span: Span) -> Iterator[bytes]:
    """Yield the bytes of a readable range."""
    at = span.start
    while at < span.end:
        start = at & -PAGE_SIZE
        end = min(start + PAGE_SIZE, span.end)
        yield (page(start) or bytes(PAGE_SIZE))[at - start : end - start]
        at = end
