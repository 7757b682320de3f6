# SPDX-License-Identifier: Apache-2.0
"""Pages in the compressed stores of Windows 10 and later: kept in the memory of a process of their own, compressed.

A page-table entry gives the number of a page file that exists in no file, and a page in it; both make the page's key.
A tree of all keys leads to the store that has the page, the store's own tree to the record of it (a key again, of a
chunk and a place in it), and the record to a region of the owning process's memory, the place there and the size. For
where all this lies, and who found it out, see `throwstack.pages.store_layout`.

The structures are hostile like everything in a dump: what does not fit costs the page, with a reason.
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
"""Bits of a page's key that hold its place in the page file."""
_STORE_INDEX = 0x3FF
_IS_INVALID = 1 << 24
_STORES_PER_ROW = 32
_CHUNK_ARRAYS = 32
_ELSEWHERE = 0xFFFFFFFF
"""In place of a record's key: the two descriptions do not agree on what then says where the page is."""
_XPRESS = 3
_UNIT = 16
"""Places in a region count units of 16 bytes."""
_REGION_ALIGNMENT = 0x10000
_DEPTH = 8
"""Levels of a tree. Nodes fill a page: 255 children, or 510 keys."""
_PAGES = 1024
"""Pages that are remembered, with those that cannot be had."""


class NotInStore(ThrowstackError):
    """A page cannot be had from the compressed store; the message says why."""


@dataclass(frozen=True, slots=True)
class _Store:
    """What is needed of an SMKM_STORE. `record_bits`: how many bits of a region key tell the record in its chunk."""

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
    """The stores of one machine."""

    def __init__(
        self, kernel: Memory, sm_globals: int, layout: StoreLayout, owner_memory: Callable[[int], Memory | None]
    ) -> None:
        """Read from the kernel's variable at `sm_globals`.

        `owner_memory` gives the memory of the EPROCESS at an address, or None if it is not that of memory compression.
        Neither memory may itself ask for pages of the stores.
        """
        self._kernel = kernel
        self._globals = sm_globals
        self._layout = layout
        self._owner_memory = owner_memory
        self._word = "I" if layout.pointer_size == 4 else "Q"
        self._stores: dict[int, _Store | NotInStore] = {}
        self._pages: dict[int, bytes | NotInStore] = {}

    def page(self, number: int, index: int) -> bytes:
        """Return page `index` of page file `number`, which is the stores'; raises `NotInStore`."""
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
        """Return the value of `key` in the B+ tree whose root is at `tree`."""
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
        """Return the place and the size that the record of `region_key` gives.

        A chunk's number tells the array that has the pointer to it by its highest bit, and the index there by the rest.
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
        """Return the address in the owner's memory."""
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
        """Return the pointer at `at` in `data`."""
        return int.from_bytes(data[at : at + self._layout.pointer_size], "little")


def _contents(memory: Memory, address: int, size: int) -> bytes:
    """Return the page that is stored at `address`; one that could not be made smaller is stored as it is."""
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
    """Return what `read` returns or why it cannot, to be remembered: a store or page that is damaged stays so."""
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
