# SPDX-License-Identifier: Apache-2.0
"""The memory of a process for a minidump: its regions, by its VADs, and the parts of them that may be readable.

A VAD keeps the protection with which its range was allocated, as a number of five bits: the lower three are an access,
the upper two say guard page, no cache or write combining (MM_READONLY and so on, known from the Windows Research
Kernel). In a minidump it is a PAGE_ constant of winnt.h.
"""

from __future__ import annotations

from collections.abc import Iterator

from throwstack.core.memory import PAGE_SIZE, Memory
from throwstack.core.registers import Arch
from throwstack.minidump.dumped import DumpedRegion, Span
from throwstack.minidump.memory_lists import COMMIT, RESERVE
from throwstack.pages.resolver import ResolvedPages
from throwstack.pages.vad_views import VadView, VadViews

_PRIVATE, _MAPPED, _IMAGE = 0x20000, 0x40000, 0x1000000
_ACCESS = (0x01, 0x02, 0x10, 0x20, 0x04, 0x08, 0x40, 0x80)
"""PAGE_NOACCESS, READONLY, EXECUTE, EXECUTE_READ, READWRITE, WRITECOPY, EXECUTE_READWRITE, EXECUTE_WRITECOPY."""
_MODIFIERS = (0, 0x200, 0x100, 0x400)
"""PAGE_NOCACHE, PAGE_GUARD, PAGE_WRITECOMBINE."""
_SHARED_DATA = 0x7FFE0000
"""Where every process sees KUSER_SHARED_DATA; older Windows has no VAD for it."""
_END = {Arch.X86: 1 << 32, Arch.X64: 1 << 47}
_WINDOW = 512 * PAGE_SIZE
"""As much as one page of prototype PTEs maps, at 8 bytes each."""
_MAX_WINDOWS, _LEAST_WINDOWS = 1 << 21, 1 << 9
"""The limit on parts of views that are looked at, shared equally by all views; but 1 GiB of each view always is."""


class MinidumpPages:
    """The pages of a process, as `throwstack.minidump.full_memory` takes them."""

    def __init__(self, pages: ResolvedPages, kernel: Memory, entry_size: int) -> None:
        """`pages` are those of the process. `kernel` is the memory with its prototype PTEs, of `entry_size` bytes."""
        self._pages = pages
        self._kernel = kernel
        self._entry_size = entry_size
        self.page = pages.page

    def candidates(self, span: Span) -> Iterator[Span]:
        """Yield the parts of `span` that have page tables; of a view of a section, also those with prototype PTEs."""
        view = self._pages.views.find(span.start)
        if view is None or view.is_private:
            yield from (Span(*part) for part in self._pages.mapped(span.start, span.end - 1))
        else:
            yield from self._of_section(view, span)

    def _of_section(self, view: VadView, span: Span) -> Iterator[Span]:
        """Yield the parts of a view whose prototype PTEs can be read, at most as much as `_MAX_WINDOWS` allows it.

        Every page of a view can be in memory without being mapped in this process.
        """
        most = max(_MAX_WINDOWS // len(self._pages.views), _LEAST_WINDOWS)
        for number, start in enumerate(range(span.start, span.end, _WINDOW)):
            if number == most:
                return
            part = Span(start, min(start + _WINDOW, span.end))
            ends = (view.prototype(address, self._entry_size) for address in (part.start, part.end - PAGE_SIZE))
            has_prototypes = any(at is not None and self._kernel.is_readable(at) for at in ends)
            if has_prototypes or any(self._pages.mapped(part.start, part.end - 1)):
                yield part


def regions_of(views: VadViews, memory: Memory, arch: Arch) -> tuple[DumpedRegion, ...]:
    """Return the regions of a process that code of `arch` can see, in address order and without overlaps.

    Where VADs overlap, which only damage makes, the first one counts.
    """
    found: list[DumpedRegion] = []
    at = 0
    for view in views:
        start, end = max(view.start, at), min(view.end, _END[arch])
        if start < end:
            found.append(_region(view, start, end))
            at = end
    shared = Span(_SHARED_DATA, _SHARED_DATA + PAGE_SIZE)
    if memory.is_readable(_SHARED_DATA) and not any(
        region.span.start < shared.end and shared.start < region.span.end for region in found
    ):
        found.append(DumpedRegion(shared, shared.start, 0x02, COMMIT, 0x02, _PRIVATE))
        found.sort(key=lambda region: region.span)
    return tuple(found)


def _region(view: VadView, start: int, end: int) -> DumpedRegion:
    protection = 0 if view.protection is None else _ACCESS[view.protection & 7] | _MODIFIERS[view.protection >> 3 & 3]
    kind = _PRIVATE if view.is_private else _IMAGE if view.is_image else _MAPPED
    state = COMMIT if view.is_committed or not view.is_private else RESERVE
    return DumpedRegion(Span(start, end), view.start, protection, state, protection, kind)
