# SPDX-License-Identifier: Apache-2.0
"""Reads pages from the compressed stores of Windows 10 and later.

Windows compresses pages instead of writing them to a page file at once. The compressed data is in the user memory of a
process of its own ("MemCompression"); the structures that locate it are in kernel memory. A page is found in these
steps:

1. The page-table entry looks as if the page were in a page file. The number of that page file stands for the stores (no
   such file exists on disk). This number and the page's index in the page file make the page's key: page 0x1234 of page
   file 2 has the key 0x20001234.
2. A B+ tree in SmGlobals maps the key to the index of a store.
3. The store's own B+ tree maps the key to a region key, which has the number of a chunk and the number of a record in
   that chunk.
4. The record gives the position of the compressed data, here called its place, and the size of the data. The upper bits
   of the place are the number of a region of the owner's memory. The lower bits are the offset in that region, in units
   of 16 bytes. The owner is the process MemCompression.
5. The data is decompressed (`throwstack.pages.xpress`). Data whose size is that of a page is not compressed.

`throwstack.pages.store_layout` has the offsets of these structures and says where they are documented. The structures
may be hostile, as everything in a dump. If the structures of a page make no sense, the page is not read, and
`NotInStore` says why.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from throwstack.core.errors import ThrowstackError
from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.pages.store_layout import StoreLayout
from throwstack.pages.xpress import BadXpress, decompress

_T = TypeVar("_T")

_PLACE_BITS = 28
"""Low bits of a page's key that hold the page's number in the page file."""
_STORE_INDEX = 0x3FF
_IS_INVALID = 1 << 24
_STORES_PER_ROW = 32
_CHUNK_ARRAYS = 32
_ELSEWHERE = 0xFFFFFFFF
"""The place in a record whose data is elsewhere. Two published descriptions disagree on where, so it is not read."""
_XPRESS = 3
_UNIT = 16
"""The unit of a place in bytes."""
_REGION_ALIGNMENT = 0x10000
_DEPTH = 8
"""Most levels of a B+ tree. A node fills a page and has at most 255 children, or in a leaf 510 keys."""
_PAGES = 1024
"""The most pages for which the contents, or the reason why they cannot be read, are remembered."""


class NotInStore(ThrowstackError):
    """A page cannot be read from the compressed store; the message says why."""


@dataclass(frozen=True, slots=True)
class _Store:
    """The members of an SMKM_STORE that are used, and `memory`, the memory of the store's owner.

    The low `record_bits` bits of a region key are the number of the record, the bits above are that of the chunk.
    """

    pages_tree: int
    chunk_arrays: tuple[int, ...]
    record_bits: int
    record_mask: int
    record_size: int
    header_size: int
    region_mask: int
    region_shift: int
    regions: int
    memory: Memory


class CompressedStores:
    """The compressed stores of one machine."""

    def __init__(
        self, kernel: Memory, sm_globals: int, layout: StoreLayout, owner_memory: Callable[[int], Memory | None]
    ) -> None:
        """`kernel` is the kernel's memory, and `sm_globals` the address of its variable SmGlobals.

        `layout` has the offsets for the kernel's build. `owner_memory` takes the address of an EPROCESS and returns the
        memory of that process, or None if it is not the memory compression process. Neither this memory nor `kernel`
        may read pages from the compressed stores: that would be an endless recursion.
        """
        self._kernel = kernel
        self._globals = sm_globals
        self._layout = layout
        self._owner_memory = owner_memory
        self._word = "I" if layout.pointer_size == 4 else "Q"
        self._stores: dict[int, _Store | NotInStore] = {}
        self._pages: dict[int, bytes | NotInStore] = {}

    def page(self, number: int, index: int) -> bytes:
        """Return page `index` of the page file `number` that stands for the stores; raises `NotInStore`."""
        if index >> _PLACE_BITS or not 0 <= number < 16:
            message = "a page's place is beyond what a key can hold"
            raise NotInStore(message)
        key = number << _PLACE_BITS | index
        if key not in self._pages:
            if len(self._pages) >= _PAGES:
                self._pages.clear()
            self._pages[key] = _outcome(self._read, key)
        return _checked(self._pages[key])

    def _read(self, key: int) -> bytes:
        found = self._look_up(self._pointer(self._globals + self._layout.key_tree), key)
        if found & _IS_INVALID:
            message = "a page's store is marked as not valid"
            raise NotInStore(message)
        index = found & _STORE_INDEX
        if index not in self._stores:
            self._stores[index] = _outcome(self._open, index)
        store = _checked(self._stores[index])
        place, size = self._record(store, self._look_up(store.pages_tree, key))
        return _contents(store.memory, self._address(store, place), size)

    def _open(self, index: int) -> _Store:
        layout = self._layout
        row, column = divmod(index, _STORES_PER_ROW)
        metadata = self._pointer(self._globals + row * layout.pointer_size) + column * layout.store_metadata_size
        data = self._kernel.read(self._pointer(metadata), layout.size)
        algorithm = int.from_bytes(data[layout.algorithm : layout.algorithm + 2], "little")
        if algorithm != _XPRESS:
            message = "a store is compressed by another algorithm than Xpress"
            raise NotInStore(message)
        memory = self._owner_memory(self._of(data, layout.owner))
        if memory is None:
            message = "a store's owner is not the process of memory compression"
            raise NotInStore(message)
        bits, record_mask, record_size, _, header_size = struct.unpack_from("<5I", data, layout.bit_value)
        region_mask, region_shift = struct.unpack_from("<II", data, layout.region_mask)
        return _Store(
            self._of(data, layout.pages_tree),
            struct.unpack_from(f"<{_CHUNK_ARRAYS}{self._word}", data, layout.chunks),
            bits & 0xFF,
            record_mask,
            record_size,
            header_size,
            region_mask,
            region_shift & 0xFF,
            self._of(data, layout.regions),
            memory,
        )

    def _look_up(self, tree: int, key: int) -> int:
        """Return the 32-bit value of `key` in the B+ tree whose root node is at `tree`."""
        width = self._layout.pointer_size
        for _ in range(_DEPTH):
            head = self._kernel.read(tree, 2 * width)
            count, is_leaf = int.from_bytes(head[:2], "little"), head[3] != 0
            entry_size = 8 if is_leaf else 2 * width
            if 2 * width + count * entry_size > PAGE_SIZE:
                break
            data = self._kernel.read(tree + 2 * width, count * entry_size)
            keys = struct.unpack(f"<{len(data) // 4}I", data)[:: entry_size // 4]
            at = bisect_right(keys, key) - 1
            if is_leaf:
                if at < 0 or keys[at] != key:
                    message = "a page's key is not in the store's trees"
                    raise NotInStore(message)
                return int.from_bytes(data[at * 8 + 4 : at * 8 + 8], "little")
            tree = self._of(head, width) if at < 0 else self._of(data, at * entry_size + width)
        message = "a tree of the store is damaged"
        raise NotInStore(message)

    def _record(self, store: _Store, region_key: int) -> tuple[int, int]:
        """Return place and size of the compressed data, from the record that `region_key` selects.

        Pointers to chunks are in up to 32 arrays, each twice as long as the array before it. The highest set bit of a
        chunk's number selects the array, and the bits below select the element: chunk 0b1011 is element 0b011 of
        array 3.
        """
        chunk = region_key >> store.record_bits
        if not chunk:
            message = "a page's record is in no chunk"
            raise NotInStore(message)
        array = chunk.bit_length() - 1
        at = store.chunk_arrays[array] + (chunk ^ 1 << array) * self._layout.chunk_pointer_size
        records = self._pointer(at) + store.header_size
        record = self._kernel.read(records + (region_key & store.record_mask) * store.record_size, 8)
        place, size = struct.unpack("<II", record)
        if place == _ELSEWHERE:
            message = "a page's record leads to another one"
            raise NotInStore(message)
        return place, size

    def _address(self, store: _Store, place: int) -> int:
        """Return the address in the owner's memory that `place`, a region's number and an offset in it, stands for."""
        pointer_size = self._layout.pointer_size
        if store.region_shift >= 32:
            message = "a store's division into regions is not valid"
            raise NotInStore(message)
        region = self._pointer(store.regions + (place >> store.region_shift) * pointer_size)
        if not region or region % _REGION_ALIGNMENT or region >> (47 if pointer_size == 8 else 31):
            message = "a page's region is not valid"
            raise NotInStore(message)
        return region + (place & store.region_mask) * _UNIT

    def _pointer(self, address: int) -> int:
        return self._of(self._kernel.read(address, self._layout.pointer_size), 0)

    def _of(self, data: bytes, at: int) -> int:
        """Return the pointer at the offset `at` in `data`."""
        return int.from_bytes(data[at : at + self._layout.pointer_size], "little")


def _contents(memory: Memory, address: int, size: int) -> bytes:
    """Return the page whose stored data is the `size` bytes at `address`.

    A page that compression did not make smaller is stored uncompressed; then `size` is that of a page.
    """
    is_raw = size == PAGE_SIZE
    size = size if is_raw else size % PAGE_SIZE
    if not size:
        message = "a page's record gives no size"
        raise NotInStore(message)
    try:
        data = memory.read(address, size)
    except MemoryUnreadable:
        message = "a page's compressed data is not in the dump"
        raise NotInStore(message) from None
    try:
        return data if is_raw else decompress(data, PAGE_SIZE)
    except BadXpress:
        message = "a page's compressed data is damaged"
        raise NotInStore(message) from None


def _outcome(read: Callable[[int], _T], number: int) -> _T | NotInStore:
    """Return `read(number)`, or the reason why it fails. Both can be remembered, as the dump does not change."""
    try:
        return read(number)
    except NotInStore as reason:
        return NotInStore(*reason.args)
    except MemoryUnreadable:
        return NotInStore("structures of the store are not in the dump")


def _checked(found: _T | NotInStore) -> _T:
    if isinstance(found, NotInStore):
        raise NotInStore(*found.args)
    return found
