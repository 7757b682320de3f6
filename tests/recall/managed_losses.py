# SPDX-License-Identifier: Apache-2.0
"""The pages that a managed process can lose, one at a time, by what is in them.

A page counts if the survey and the report of the process read it. What is in it is told by the capture (which memory
can be run, which is a stack) and, for the heap, the Threads and the metadata, by where throwstack finds these when
nothing is lost. That labels a loss, and says nothing of what has to come of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from tests.live.capture import Capture
from throwstack.core.memory import PAGE_SIZE, Memory
from throwstack.images.image import Image
from throwstack.managed.cli_header import CliHeader
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.runtime import Runtime
from throwstack.report.crash_report import CrashReport
from throwstack.report.managed_report import objects_of


class ManagedKind(Enum):
    """What is in the page that is lost."""

    HEAP = "page of the GC heap"
    TYPES = "page of types, methods, modules"
    CODE = "page of JIT code and its headers"
    THREADS = "page of a Thread of the runtime"
    METADATA = "page of metadata"
    PRECOMPILED = "page of a precompiled image"
    RUNTIME = "page of the runtime's DLL"
    STACK = "page of its stack"
    TEB = "page of its TEB"
    OTHER_STACK = "page of another thread's stack or TEB"
    OTHER = "page of other DLLs, loader data"

    @property
    def is_managed(self) -> bool:
        """Say whether the page is the runtime's: its loss must never cost the row."""
        return self in _MANAGED

    @property
    def is_of_thread(self) -> bool:
        """Say whether the loss is the stuck thread's, so that a warning has to name that thread."""
        return self in {ManagedKind.STACK, ManagedKind.TEB}


_MANAGED = frozenset(
    {
        *(ManagedKind.HEAP, ManagedKind.TYPES, ManagedKind.CODE, ManagedKind.THREADS),
        *(ManagedKind.METADATA, ManagedKind.PRECOMPILED, ManagedKind.RUNTIME),
    }
)


@dataclass(frozen=True)
class Contents:
    """What is known of a process when nothing is lost.

    `native` are the pages that are read of it where nothing is known of managed code; `tid` is the stuck thread.
    """

    capture: Capture
    tid: int
    memory: Memory
    images: tuple[Image, ...]
    runtime: Runtime
    crash: CrashReport
    native: frozenset[int]


Range = tuple[int, int, ManagedKind]


def kinds_of_pages(contents: Contents, pages: set[int]) -> Iterator[tuple[int, ManagedKind]]:
    """Yield each page with what is in it, by rising address."""
    ranges = list(_ranges(contents))
    for page in sorted(pages):
        found = next((kind for low, high, kind in ranges if page < high and low < page + PAGE_SIZE), None)
        yield page, found or (ManagedKind.OTHER if page in contents.native else ManagedKind.TYPES)


def _ranges(contents: Contents) -> Iterator[Range]:
    """Yield address ranges with what is in them, the more particular ones first."""
    capture, runtime = contents.capture, contents.runtime
    for thread in capture.threads:
        is_own = thread.tid == contents.tid
        yield thread.stack_limit, thread.stack_base, ManagedKind.STACK if is_own else ManagedKind.OTHER_STACK
        teb = thread.teb & -PAGE_SIZE
        size = 2 * PAGE_SIZE if capture.arch == "x64" else PAGE_SIZE
        yield teb, teb + size, ManagedKind.TEB if is_own else ManagedKind.OTHER_STACK
    for thread in capture.threads:
        found = runtime._threads.thread(thread.tid)
        if found is not None:
            yield found.address, found.address + found.id_at + PAGE_SIZE // 8, ManagedKind.THREADS
    yield from _images(contents)
    objects = {address for exception in contents.crash.exceptions for address in objects_of(exception)}
    for region in capture.regions:
        end = region.base + len(region.data)
        if any(region.base <= address < end for address in objects):
            yield region.base, end, ManagedKind.HEAP
        elif region.is_code:
            yield region.base, end, ManagedKind.CODE


def _images(contents: Contents) -> Iterator[Range]:
    listed = {image.base: image for image in contents.images}
    flat = {base for base, found in contents.runtime._modules._by_base.items() if found and base not in listed}
    for base in (*listed, *flat):
        try:
            header = CliHeader.read(contents.memory, base, is_flat=base in flat)
            metadata = None if header is None else (header.address(header.metadata[0]), header.metadata[1])
        except MetadataError:
            continue
        if header is None or metadata is None:
            continue
        yield metadata[0], metadata[0] + metadata[1], ManagedKind.METADATA
        yield base, base + PAGE_SIZE, ManagedKind.METADATA
        if base in listed:
            yield base, _end(listed[base]), ManagedKind.PRECOMPILED if header.precompiled[1] else ManagedKind.METADATA
    for image in listed.values():
        own = image.base == contents.runtime.image.base
        yield image.base, _end(image), ManagedKind.RUNTIME if own else ManagedKind.OTHER


def _end(image: Image) -> int:
    return image.base + image.module.size
