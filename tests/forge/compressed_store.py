# SPDX-License-Identifier: Apache-2.0
"""The compressed store of Windows 10: trees, stores, chunks of page records, and the process that holds the regions.

Written from the published descriptions alone: Mandiant, "Extracting Compressed Pages from the Windows 10 Virtual Store"
(2019) and its win10_volatility; from build 19041 on MemProcFS. Sizes that a kernel chooses by itself (of records, of
chunks, of tree nodes) are made to differ from store to store.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.forge.describe import Process, Region
from tests.forge.kernel_image import KernelImage
from tests.forge.kernel_memory import KernelMemory, Pool
from tests.forge.layouts import Version
from tests.forge.physical import PAGE
from tests.forge.pte_types import PAGING_FILE_FLAGS, PAGING_FILE_SIZE
from tests.forge.structures import Structure
from tests.forge.xpress import compress

STORE_FILE = 2
"""The number of the page file that is the store; 0 is pagefile.sys, 1 swapfile.sys."""
SM_GLOBALS = "?SmGlobals@@3U_SM_GLOBALS@@A"
_OWNER_PID = 0x6A0
_UNIT, _REGION = 16, 0x10000
_FIRST_REGION, _REGION_STEP = 0x1000_0000, 0x30000
_LEAF, _INNER = 16, 5
"""How many entries a tree's nodes get: fewer than they could hold, so that small trees have several levels."""
RAW_EACH = 5
"""Each fifth page is stored as it is."""
_XPRESS = 3
_CHUNK_ARRAYS = 32


@dataclass(frozen=True)
class _Offsets:
    """Where members are, from the start of SmGlobals (first two) and SMKM_STORE."""

    tree: int
    metadata: int
    pages: int
    chunks: int
    back: int
    mask: int
    shift: int
    algorithm: int
    regions: int
    owner: int


def _offsets(build: int, *, is_64bit: bool) -> _Offsets:
    if is_64bit:
        late = {14393: (0x420, 0x17A8, 0x1918), 15063: (0x420, 0x1828, 0x1988)}
        last = (0x430, 0x1848, 0x19A8 if build < 19041 else 0x19B8)
        return _Offsets(0x1C0, 0x28, 0x50, 0x110, 0x370, 0x378, 0x37C, *late.get(build, last))
    late = {15063: (0x258, 0x1174, 0x1244)}
    last = (0x25C, 0x1184, 0x1254 if build < 19041 else 0x125C)
    return _Offsets(0xF4, 0x14, 0x38, 0xA4, 0x1F8, 0x1FC, 0x200, *late.get(build, last))


@dataclass
class _Store:
    """One store: its index, and how it divides its chunks."""

    index: int
    record_bits: int
    record_size: int
    header_size: int
    pages: dict[int, bytes] = field(default_factory=dict)


class StoreWriter:
    """Writes the pages that the processes have in the store."""

    def __init__(self, kernel: KernelMemory, image: KernelImage, version: Version) -> None:
        self._kernel = kernel
        self._image = image
        self._width = kernel.layout.pointer_size
        self._offsets = _offsets(version[2], is_64bit=kernel.layout.is_64bit)
        self._regions: list[bytearray] = []

    def write(self, pages: dict[int, bytes], write_process: Callable[[Process], Structure]) -> None:
        """Write `pages`, given by their places in the page file; `write_process` enters the owning process."""
        stores = [_Store(0, 4, 0x10, 0x20), _Store(33, 5, 0x14, 0x30), _Store(0x3FE, 3, 8, 0x40)]
        for place, page in sorted(pages.items()):
            stores[place % len(stores)].pages[STORE_FILE << 28 | place] = page
        records = [{key: self._put(key, page) for key, page in store.pages.items()} for store in stores]
        regions = [
            Region(_FIRST_REGION + _REGION_STEP * at, bytes(data).ljust(_REGION, b"\0"))
            for at, data in enumerate(self._regions)
        ]
        process = Process(_OWNER_PID, "MemCompression", peb=0, regions=regions, writes_loader_data=False)
        owner = write_process(process).address
        sm_globals = self._address(SM_GLOBALS)
        for store, places in zip(stores, records, strict=True):
            self._write_store(sm_globals, store, places, owner)
        # What the low ten bits leave of a value is not described: only that bit 24 means not valid.
        values = {key: 0x40000 | store.index for store in stores for key in store.pages}
        self._kernel.write_pointer(sm_globals + self._offsets.tree, self._tree(values))
        self._write_page_file()

    def _address(self, symbol: str) -> int:
        address = self._image.address(symbol)
        if address is None:
            message = f"this kernel has no {symbol} for a compressed store"
            raise ValueError(message)
        return address

    def _put(self, key: int, page: bytes) -> tuple[int, int]:
        """Store a page's data; return its place (region and unit there) and size."""
        data = compress(page)
        if key % RAW_EACH == 0 or len(data) >= PAGE:
            data = page
        if not self._regions or len(self._regions[-1]) + len(data) > _REGION:
            self._regions.append(bytearray())
        region = self._regions[-1]
        unit = len(region) // _UNIT
        region += data + b"\xee" * (-len(data) % _UNIT)
        return (len(self._regions) - 1) << 12 | unit, len(data)

    def _write_store(self, sm_globals: int, store: _Store, places: dict[int, tuple[int, int]], owner: int) -> None:
        kernel, width, offsets = self._kernel, self._width, self._offsets
        address = kernel.allocate(2 * PAGE, align=PAGE)
        kernel.write(address, bytes(2 * PAGE))
        row, column = divmod(store.index, 32)
        at = sm_globals + row * width
        metadata = int.from_bytes(kernel.read(at, width), "little")
        if not metadata:
            metadata = self._allocate(32 * offsets.metadata, b"smSa")
            kernel.write(metadata, bytes(32 * offsets.metadata))
            kernel.write_pointer(at, metadata)
        kernel.write_pointer(metadata + column * offsets.metadata, address)
        kernel.write_pointer(metadata + column * offsets.metadata + 3 * width, owner)
        keys = self._write_chunks(address + offsets.chunks, store, places)
        kernel.write_pointer(address + offsets.pages, self._tree(keys))
        kernel.write_pointer(address + offsets.back, address)
        kernel.write(address + offsets.mask, struct.pack("<I", 0xFFF))
        kernel.write(address + offsets.shift, struct.pack("<I", 12))
        kernel.write(address + offsets.algorithm, struct.pack("<H", _XPRESS))
        regions = self._allocate(max(1, len(self._regions)) * width, b"smRp")
        for number in range(len(self._regions)):
            kernel.write_pointer(regions + number * width, _FIRST_REGION + _REGION_STEP * number)
        kernel.write_pointer(address + offsets.regions, regions)
        kernel.write_pointer(address + offsets.owner, owner)

    def _write_chunks(self, at: int, store: _Store, places: dict[int, tuple[int, int]]) -> dict[int, int]:
        """Write chunks of page records; return the region key of each page's key."""
        kernel, width = self._kernel, self._width
        step = 16 if width == 8 else 12
        per_chunk = 1 << store.record_bits
        keys: dict[int, int] = {}
        items = list(places.items())
        chunks = [items[first : first + per_chunk] for first in range(0, len(items), per_chunk)]
        arrays: dict[int, int] = {}
        for number, chunk in enumerate(chunks, 1):
            page = kernel.allocate(PAGE, align=PAGE)
            for index, (key, (place, size)) in enumerate(chunk):
                kernel.write(page + store.header_size + index * store.record_size, struct.pack("<II", place, size))
                keys[key] = number << store.record_bits | index
            level = number.bit_length() - 1
            if level not in arrays:
                arrays[level] = self._allocate(step << level, b"smBA")
                kernel.write_pointer(at + level * width, arrays[level])
            kernel.write_pointer(arrays[level] + (number - (1 << level)) * step, page)
        head = (store.record_bits, per_chunk - 1, store.record_size, per_chunk, store.header_size)
        kernel.write(at + _CHUNK_ARRAYS * width + 8, struct.pack("<5I", *head))
        return keys

    def _tree(self, values: dict[int, int]) -> int:
        """Write a B+ tree; return its root."""
        items = sorted(values.items())
        leaves = [items[first : first + _LEAF] for first in range(0, len(items), _LEAF)] or [[]]
        level = [
            (
                leaf[0][0] if leaf else 0,
                self._node(0, len(leaf), 0, b"".join(struct.pack("<II", *item) for item in leaf)),
            )
            for leaf in leaves
        ]
        height = 0
        while len(level) > 1:
            height += 1
            level = [self._inner(level[first : first + _INNER], height) for first in range(0, len(level), _INNER)]
        return level[0][1]

    def _inner(self, children: list[tuple[int, int]], height: int) -> tuple[int, int]:
        code = "<I4xQ" if self._width == 8 else "<II"
        entries = b"".join(struct.pack(code, *child) for child in children[1:])
        return children[0][0], self._node(height, len(children) - 1, children[0][1], entries)

    def _node(self, height: int, count: int, left: int, entries: bytes) -> int:
        address = self._kernel.allocate(PAGE, align=PAGE)
        head = struct.pack("<HBB", count, height, height == 0).ljust(self._width, b"\0")
        self._kernel.write(address, head + left.to_bytes(self._width, "little") + entries)
        return address

    def _allocate(self, size: int, tag: bytes) -> int:
        layout = self._kernel.layout
        header = layout.size("_POOL_HEADER")
        address = self._kernel.allocate(size, Pool.NONPAGED, before=header)
        self._kernel.write(address - header + layout.offset("_POOL_HEADER", "PoolTag"), tag)
        return address

    def _write_page_file(self) -> None:
        """Write the _MMPAGING_FILEs, of which one says that it is the store."""
        kernel, layout = self._kernel, self._kernel.layout
        has_types = layout.has("_MI_PARTITION")
        files = layout.offset("_MI_PARTITION", "Vp.PagingFile") if has_types else 0x20
        flags = layout.offset("_MMPAGING_FILE", "VirtualStorePagefile") if has_types else PAGING_FILE_FLAGS
        for number in range(STORE_FILE + 1):
            address = self._allocate(PAGING_FILE_SIZE, b"Mm  ")
            kernel.write(address, bytes(PAGING_FILE_SIZE))
            kernel.write(address + flags, struct.pack("<H", number | (number == STORE_FILE) << 6))
            kernel.write_pointer(self._address("MiSystemPartition") + files + number * self._width, address)


def store_places() -> Iterator[int]:
    """Yield places in the store's page file, scattered over all that a key can hold."""
    number = 1
    while True:
        yield number * 0x9E3779B1 & 0xFFFFFFF
        number += 1
