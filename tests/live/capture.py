# SPDX-License-Identifier: Apache-2.0
"""Copies the Windows side of a blocked Wine process out of /proc: memory, modules, threads and their registers.

Wine keeps TEBs, the PEB and the loader's lists as Windows does. The registers with which a thread went into its
system call are in Wine's syscall frame, pointed to from the TEB. What is Linux (ELF images, Wine's own "kernel
stack" right above each user stack) is left behind.
"""

from __future__ import annotations

import os
import re
import struct
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.live.wine_layout import FRAME_X64, X64, X86, Layout

PAGE = 0x1000
# Where Windows' part of the address space ends: 32-bit Linux libraries and their heaps are in the upper half.
WINDOWS_END_X64 = 0x7000_0000_0000
WINDOWS_END_X86 = 0x8000_0000
MAX_MODULES = 200
MAX_HEAP = 0x40_0000
_LOWEST = 0x10000
KERNEL_STACK = 0x10_0000
CODE_ACCESS = {"r-xp", "rwxp"}
MEM_PRIVATE = 0x20000
EXECUTABLE = 0xF0


class CaptureError(Exception):
    """The process does not look as expected."""


@dataclass(frozen=True)
class Mapping:
    """A line of /proc/PID/maps."""

    start: int
    end: int
    access: str
    file: str


@dataclass(frozen=True)
class CommittedRange:
    """Memory that Windows, here Wine, says is committed: `protection` and `type` as VirtualQueryEx gives them."""

    start: int
    end: int
    protection: int
    type: int


@dataclass(frozen=True)
class CapturedThread:
    """A thread. `registers` are those of its system call; on WoW64 those of the 64-bit side."""

    tid: int
    teb: int
    stack_base: int
    stack_limit: int
    registers: dict[str, int]
    teb32: int | None = None


@dataclass(frozen=True)
class CapturedModule:
    """An entry of the loader's list."""

    name: str
    path: str
    base: int
    size: int
    entry: int
    timestamp: int


@dataclass(frozen=True)
class CapturedRegion:
    """A range of memory; `untouched` are the indices of pages that were never written (demand zero).

    `is_code` says of memory outside images that it can be run, `is_section` that it is a view of a section, which the
    page file can back.
    """

    base: int
    data: bytes
    image: CapturedModule | None = None
    reserve: int = 0
    untouched: frozenset[int] = frozenset()
    is_code: bool = False
    is_section: bool = False


@dataclass
class Capture:
    """A process as captured."""

    arch: str
    pid: int
    peb: int
    peb32: int | None
    modules: list[CapturedModule]
    modules32: list[CapturedModule]
    threads: list[CapturedThread]
    regions: list[CapturedRegion] = field(default_factory=list)

    def read(self, address: int, size: int) -> bytes:
        """Read captured memory. Raises CaptureError where there is none."""
        for region in self.regions:
            offset = address - region.base
            if offset >= 0 and offset + size <= len(region.data):
                return region.data[offset : offset + size]
        message = f"{address:#x} was not captured"
        raise CaptureError(message)

    def module_at(self, address: int) -> CapturedModule | None:
        """Return the module that holds an address."""
        return next((m for m in self.modules + self.modules32 if m.base <= address < m.base + m.size), None)


class LiveProcess:
    """A Wine process's memory while it runs. `is_64bit` is the process's, so true of WoW64."""

    def __init__(self, pid: int, is_64bit: bool) -> None:
        """Open /proc/PID/mem."""
        self.pid = pid
        self.is_64bit = is_64bit
        self.layout = X64 if is_64bit else X86
        self._memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)

    def close(self) -> None:
        """Close it."""
        os.close(self._memory)

    def read(self, address: int, size: int) -> bytes:
        """Read exactly `size` bytes. Raises CaptureError."""
        try:
            data = os.pread(self._memory, size, address)
        except OSError as error:
            message = f"{address:#x}: {error}"
            raise CaptureError(message) from error
        if len(data) != size:
            message = f"{address:#x}: short read"
            raise CaptureError(message)
        return data

    def pointer(self, address: int, layout: Layout | None = None) -> int:
        """Read a pointer."""
        layout = layout or self.layout
        return int(struct.unpack(layout.pointer, self.read(address, layout.size))[0])

    def mappings(self, *, everywhere: bool = False) -> list[Mapping]:
        """Return the mappings of the Windows side; with `everywhere` those above it too."""
        windows_end = WINDOWS_END_X64 if self.is_64bit else WINDOWS_END_X86
        if everywhere:
            windows_end = 1 << 64
        found = []
        for line in Path(f"/proc/{self.pid}/maps").read_text(encoding="utf-8").splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \d+\s*(.*)", line)
            if match and int(match[1], 16) < windows_end:
                found.append(Mapping(int(match[1], 16), int(match[2], 16), match[3], match[4]))
        return found

    def tebs(self, layout: Layout) -> list[int]:
        """Find the TEBs: pages of private memory whose self pointer is their own address."""
        found = []
        for mapping in self.mappings():
            if mapping.access != "rw-p" or mapping.file or mapping.end - mapping.start > MAX_HEAP:
                continue
            pages = range(mapping.start, mapping.end, PAGE)
            found += [page for page in pages if self._is_teb(page, layout)]
        return found

    def _is_teb(self, page: int, layout: Layout) -> bool:
        if self.pointer(page + layout.teb_self, layout) != page:
            return False
        stack_base = self.pointer(page + layout.size, layout)
        stack_limit = self.pointer(page + 2 * layout.size, layout)
        thread = self.pointer(page + layout.teb_client + layout.size, layout)
        return bool(thread) and 0 < stack_limit < stack_base

    def registers(self, teb: int) -> dict[str, int]:
        """Return the user-mode registers of a thread in a system call, from Wine's syscall frame."""
        frame = self.pointer(teb + self.layout.teb_syscall_frame)
        if self.is_64bit:
            values = dict(zip(FRAME_X64, struct.unpack("<20Q", self.read(frame, 160)), strict=True))
            return {**values, "cs": values["cs"] & 0xFFFF, "ss": values["ss"] & 0xFFFF}
        eflags, eip, esp, cs, ss, ds, es, fs, gs = struct.unpack_from("<III6H", self.read(frame, 28), 4)
        eax, ebx, ecx, edx, edi, esi, ebp = struct.unpack("<7I", self.read(frame + 0x1C, 28))
        return {
            "eax": eax, "ebx": ebx, "ecx": ecx, "edx": edx, "edi": edi, "esi": esi, "ebp": ebp, "eip": eip, "esp": esp,
            "eflags": eflags, "cs": cs, "ss": ss, "ds": ds, "es": es, "fs": fs, "gs": gs,
        }  # fmt: skip

    def modules(self, peb: int, layout: Layout) -> list[CapturedModule]:
        """Read the loader's list."""
        return [module for module, _ in self._ldr_entries(peb, layout)]

    def _ldr_entries(self, peb: int, layout: Layout) -> Iterator[tuple[CapturedModule, int]]:
        head = self.pointer(peb + layout.peb_ldr, layout) + layout.ldr_list
        entry = self.pointer(head, layout)
        for _ in range(MAX_MODULES):
            if entry == head:
                return
            base = self.pointer(entry + layout.entry_base, layout)
            start = self.pointer(entry + layout.entry_base + layout.size, layout)
            size = struct.unpack("<I", self.read(entry + layout.entry_base + 2 * layout.size, 4))[0]
            stamp = struct.unpack("<I", self.read(entry + layout.entry_timestamp, 4))[0]
            name = self._string(entry + layout.entry_base_name, layout)
            path = self._string(entry + layout.entry_full_name, layout)
            yield CapturedModule(name, path, base, size, start, stamp), entry
            entry = self.pointer(entry, layout)

    def _string(self, address: int, layout: Layout) -> str:
        length = struct.unpack("<H", self.read(address, 2))[0]
        return self.read(self.pointer(address + layout.size, layout), length).decode("utf-16-le")

    def needed(self, peb: int, layout: Layout) -> set[int]:
        """Return addresses in heap blocks that a reader of the process will want."""
        wanted = {
            peb,
            self.pointer(peb + layout.peb_ldr, layout),
            self.pointer(peb + layout.peb_parameters, layout),
            self.pointer(peb + layout.peb_heap, layout),
        }
        for _, entry in self._ldr_entries(peb, layout):
            wanted |= {entry, self.pointer(entry + layout.entry_full_name + layout.size, layout)}
        return wanted

    def words(self, start: int, end: int, layout: Layout) -> set[int]:
        """Return the words of a stack that can be addresses."""
        data = self.read(start, end - start)
        values = struct.unpack(f"<{len(data) // layout.size}{'Q' if layout.size == 8 else 'I'}", data)
        return {value for value in values if value > _LOWEST}

    def untouched(self, start: int, pages: int) -> frozenset[int]:
        """Return the pages that have no frame and no swap entry: never written."""
        with Path(f"/proc/{self.pid}/pagemap").open("rb") as pagemap:
            pagemap.seek(start // PAGE * 8)
            entries = struct.unpack(f"<{pages}Q", pagemap.read(pages * 8))
        return frozenset(index for index, entry in enumerate(entries) if not entry >> 62)


def capture(
    process: LiveProcess,
    *,
    throws: bool = False,
    also: Collection[int] = (),
    committed: Sequence[CommittedRange] | None = None,
) -> Capture:
    """Capture a stopped process, with its code outside images, and the private memory that holds the addresses `also`.

    Raises CaptureError.

    `throws`: it throws C++ exceptions, whose objects GCC's runtime keeps in the heap. Then the heap blocks come along
    that words on the stacks point to. `committed`: all memory that Wine gave the process. Then all of it comes along,
    at whatever address.
    """
    layout = process.layout
    tebs = process.tebs(layout)
    if not tebs:
        message = "no TEB found"
        raise CaptureError(message)
    peb = process.pointer(tebs[0] + layout.teb_peb)
    tebs = [teb for teb in tebs if process.pointer(teb + layout.teb_peb) == peb]
    modules = process.modules(peb, layout)
    modules32: list[CapturedModule] = []
    peb32 = None
    tebs32: dict[int, int] = {}
    if process.is_64bit and any(module.name.lower() == "wow64.dll" for module in modules):
        for teb in process.tebs(X86):
            tebs32[process.pointer(teb + X86.teb_client + 4, X86)] = teb
            peb32 = process.pointer(teb + X86.teb_peb, X86)
        assert peb32 is not None
        modules32 = process.modules(peb32, X86)
    threads = [_thread(process, teb, tebs32) for teb in tebs]
    process_id = process.pointer(tebs[0] + layout.teb_client)
    arch = "wow64" if peb32 else "x64" if process.is_64bit else "x86"
    found = Capture(arch, process_id, peb, peb32, modules, modules32, threads)
    images = {module.base: module for module in modules + modules32}
    found.regions = [_image(process, module) for module in images.values()]
    stacks = {(t.stack_limit, _page_up(t.stack_base)) for t in threads}
    stacks |= {_stack32(process, t.teb32) for t in threads if t.teb32 is not None}
    found.regions += [_private(process, start, end) for start, end in sorted(stacks)]
    wanted = set(tebs) | set(tebs32.values()) | process.needed(peb, layout) | set(also)
    if peb32 is not None:
        wanted |= process.needed(peb32, X86)
    if throws:
        wanted |= {word for start, end in stacks for word in process.words(start, end, layout)}
    hidden = stacks | {(end, end + KERNEL_STACK) for _, end in stacks if _is_kernel_stack(process, tebs, end)}
    hidden |= {(region.base, region.base + _page_up(len(region.data))) for region in found.regions}
    if committed is not None:
        found.regions += _all_of(process, committed, hidden, [*modules, *modules32])
        found.regions.sort(key=lambda region: region.base)
        return found
    ordered = sorted(wanted)
    for mapping in process.mappings():
        for start, end in _without(mapping.start, min(mapping.end, mapping.start + MAX_HEAP), hidden):
            is_code = mapping.access in CODE_ACCESS
            if not mapping.file and (is_code or (mapping.access == "rw-p" and _any_within(ordered, start, end))):
                found.regions.append(_private(process, start, end, is_code=is_code))
    found.regions.sort(key=lambda region: region.base)
    return found


def _all_of(
    process: LiveProcess,
    committed: Iterable[CommittedRange],
    hidden: set[tuple[int, int]],
    modules: Sequence[CapturedModule],
) -> Iterator[CapturedRegion]:
    """Yield what is committed outside of modules and `hidden`, without the files that Wine itself maps.

    The pages of a section have no frame of this process before it touches them: none is called untouched.
    """
    taken = hidden | {(module.base, module.base + _page_up(module.size)) for module in modules}
    wines = {(m.start, m.end) for m in process.mappings(everywhere=True) if m.file.startswith("/usr/")}
    for part in committed:
        for start, end in _without(part.start, part.end, taken | wines):
            is_code = bool(part.protection & EXECUTABLE)
            if part.type == MEM_PRIVATE:
                yield _private(process, start, end, is_code=is_code)
            else:
                yield CapturedRegion(start, process.read(start, end - start), is_code=is_code, is_section=True)


def _is_kernel_stack(process: LiveProcess, tebs: Iterable[int], start: int) -> bool:
    """Say whether Wine's kernel stack of a thread begins there: a fiber's stack has none after it."""
    frames = (process.pointer(teb + process.layout.teb_syscall_frame) for teb in tebs)
    return any(start <= frame < start + KERNEL_STACK for frame in frames)


def _any_within(ordered: Sequence[int], start: int, end: int) -> bool:
    """Say whether one of the ordered addresses is at `start` or above and below `end`."""
    index = bisect_left(ordered, start)
    return index < len(ordered) and ordered[index] < end


def _thread(process: LiveProcess, teb: int, tebs32: dict[int, int]) -> CapturedThread:
    layout = process.layout
    tid = process.pointer(teb + layout.teb_client + layout.size)
    base = process.pointer(teb + layout.size)
    limit = process.pointer(teb + 2 * layout.size)
    return CapturedThread(tid, teb, base, limit, process.registers(teb), tebs32.get(tid))


def _stack32(process: LiveProcess, teb32: int) -> tuple[int, int]:
    return process.pointer(teb32 + 8, X86), _page_up(process.pointer(teb32 + 4, X86))


def _without(start: int, end: int, holes: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield what is left of a range outside the holes."""
    for hole_start, hole_end in sorted(holes):
        if hole_start < end and hole_end > start:
            if hole_start > start:
                yield start, hole_start
            start = hole_end
    if start < end:
        yield start, end


def _page_up(address: int) -> int:
    return (address + PAGE - 1) & -PAGE


def _private(process: LiveProcess, start: int, end: int, *, is_code: bool = False) -> CapturedRegion:
    untouched = process.untouched(start, (end - start) // PAGE)
    return CapturedRegion(start, process.read(start, end - start), untouched=untouched, is_code=is_code)


def _image(process: LiveProcess, module: CapturedModule) -> CapturedRegion:
    """Copy an image as mapped, without the debug sections at its end."""
    size = _page_up(_loaded_size(process.read(module.base, PAGE), module.size))
    data = bytearray(size)
    for mapping in process.mappings():
        start, end = max(mapping.start, module.base), min(mapping.end, module.base + size)
        if start < end and mapping.access.startswith("r"):
            data[start - module.base : end - module.base] = process.read(start, end - start)
    return CapturedRegion(module.base, bytes(data), module, _page_up(module.size) - size)


def _loaded_size(header: bytes, whole: int) -> int:
    """Return the offset of the debug sections at the end (mingw names them `/14` and so on), or the whole size."""
    nt = struct.unpack_from("<I", header, 0x3C)[0]
    count = struct.unpack_from("<H", header, nt + 6)[0]
    table = nt + 24 + struct.unpack_from("<H", header, nt + 20)[0]
    size = whole
    for section in range(table + 40 * (count - 1), table, -40):
        if not header.startswith(b"/", section):
            break
        size = struct.unpack_from("<I", header, section + 12)[0]
    return int(size)
