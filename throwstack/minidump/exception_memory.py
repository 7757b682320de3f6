# SPDX-License-Identifier: Apache-2.0
"""Finds the memory that an exception consists of: its records, what describing it reads, objects of .NET.

What a debugger reads to say what was thrown is what `throwstack.exceptions` reads: the record and those it links to,
the C++ object with its ThrowInfo and type names, a message. So the exception is described once more, and the pages that
are read are noted. Objects of .NET refer to others (message, inner exception, recorded stack): these are followed for
two steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.guard import Guard
from throwstack.core.memory import PAGE_SIZE, Memory, PageSource
from throwstack.core.registers import Arch
from throwstack.exceptions.describe import describe
from throwstack.images.image import ImageMap
from throwstack.minidump.dumped import Span

_RECORD_SIZE = 0x98
_MAX_PAGES = 256
_OBJECT, _STEPS, _MAX_OBJECTS = 0x100, 2, 256


class _NotedPages:
    """A `PageSource` that notes which pages were read."""

    def __init__(self, source: PageSource) -> None:
        self._source = source
        self.addresses: dict[int, None] = {}

    def page(self, address: int) -> bytes | None:
        """Return a page of the source."""
        data = self._source.page(address)
        if data is not None:
            self.addresses[address] = None
        return data


def exception_memory(memory: Memory, images: ImageMap, arch: Arch, record: ExceptionRecord) -> Iterator[Span]:
    """Yield the ranges that describing the exception of `record` reads, whole pages, and its record."""
    if record.location:
        yield Span(record.location, record.location + _RECORD_SIZE)
    noted = _NotedPages(memory)
    with Guard(lambda _: None):
        describe(record, Memory(noted), images, arch)
    for address in list(noted.addresses)[:_MAX_PAGES]:
        yield Span(address, address + PAGE_SIZE)


def object_memory(memory: Memory, arch: Arch, addresses: Iterable[int]) -> Iterator[Span]:
    """Yield the begin of the objects at `addresses`, and of those that they refer to, two steps far."""
    size = arch.pointer_size
    seen: set[int] = set()
    step = [address for address in addresses if address]
    for _ in range(_STEPS + 1):
        following: list[int] = []
        for address in step:
            data = memory.read_available(address, _OBJECT)
            if address in seen or not data or len(seen) >= _MAX_OBJECTS:
                continue
            seen.add(address)
            yield Span(address - size, address + _OBJECT)  # the word before an object is its header
            words = range(0, len(data) - size + 1, size)
            following += [int.from_bytes(data[at : at + size], "little") for at in words]
        step = [word for word in following if word % size == 0 and word >= PAGE_SIZE]
