# SPDX-License-Identifier: Apache-2.0
"""Offsets in the structures of the compressed store, by the kernel's build; no public symbols describe them.

The offsets are facts from two public descriptions, which were compared:

- Mandiant's (FLARE, 2019): "Extracting Compressed Pages from the Windows 10 Virtual Store" with the repositories
  win10_volatility and win10_auto; builds 14393 to 18362, x86 and x64.
- MemProcFS (vmm/mm/mm_win.c): builds from 14393 on.

Builds 14393 to 18362: the two agree on every member below but one, the distance between the pointers to chunks in the
32-bit build 14393. So this build is left out. Build 18363 is 18362 with features switched on, and 19042 to 19045 are
19041 in the same way.

Builds 19041 to 22000: only MemProcFS describes them, and says that the pointer to the owner moved and nothing else did.
They are supported because the dump confirms it: the pointer has to lead to the memory compression process, which
`throwstack.pages.compressed_store` checks for every build.

Later builds: only MemProcFS describes them, and nothing in the dump confirms it, so they are left out. From 22621 on
the globals are in another place; from 26100 on pages are compressed with LZ4.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """Offsets and sizes in the compressed store's structures in one kernel build, in bytes.

    `key_tree` is an offset in SmGlobals. All other offsets are from the start of an SMKM_STORE, even for members of the
    ST_DATA_MGR in it. `store_metadata_size` is the size of an element of the array with the pointers to the stores.
    """

    pointer_size: int
    key_tree: int
    store_metadata_size: int
    pages_tree: int
    chunks: int
    region_mask: int
    region_shift: int
    chunk_pointer_size: int
    """Distance between the pointers to two chunks."""
    algorithm: int
    regions: int
    owner: int

    @property
    def bit_value(self) -> int:
        """Return the offset of the member that says how many low bits of a region key select the record in a chunk."""
        return self.chunks + 32 * self.pointer_size + 8

    @property
    def size(self) -> int:
        """Return the number of bytes of an SMKM_STORE that are read."""
        return self.owner + self.pointer_size


_X64 = {
    "pointer_size": 8,
    "key_tree": 0x1C0,
    "store_metadata_size": 0x28,
    "pages_tree": 0x50,
    "chunks": 0x50 + 0xC0,
    "region_mask": 0x50 + 0x328,
    "region_shift": 0x50 + 0x32C,
    "chunk_pointer_size": 0x10,
}
_X86 = {
    "pointer_size": 4,
    "key_tree": 0xF4,
    "store_metadata_size": 0x14,
    "pages_tree": 0x38,
    "chunks": 0x38 + 0x6C,
    "region_mask": 0x38 + 0x1C4,
    "region_shift": 0x38 + 0x1C8,
    "chunk_pointer_size": 0xC,
}
_BY_BUILD = (
    ((14393,), StoreLayout(**_X64, algorithm=0x50 + 0x3D0, regions=0x17A8, owner=0x1918), None),
    (
        (15063,),
        StoreLayout(**_X64, algorithm=0x50 + 0x3D0, regions=0x1828, owner=0x1988),
        StoreLayout(**_X86, algorithm=0x38 + 0x220, regions=0x1174, owner=0x1244),
    ),
    (
        (16299, 17134, 17763, 18362, 18363),
        StoreLayout(**_X64, algorithm=0x50 + 0x3E0, regions=0x1848, owner=0x19A8),
        StoreLayout(**_X86, algorithm=0x38 + 0x224, regions=0x1184, owner=0x1254),
    ),
    (
        (19041, 19042, 19043, 19044, 19045, 20348, 22000),
        StoreLayout(**_X64, algorithm=0x50 + 0x3E0, regions=0x1848, owner=0x19B8),
        StoreLayout(**_X86, algorithm=0x38 + 0x224, regions=0x1184, owner=0x125C),
    ),
)


def store_layout(build: int, *, is_64bit: bool) -> StoreLayout | None:
    """Return the layout of a kernel's build; None if the layout is unknown or not known for certain."""
    for builds, x64, x86 in _BY_BUILD:
        if build in builds:
            return x64 if is_64bit else x86
    return None
