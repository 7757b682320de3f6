# SPDX-License-Identifier: Apache-2.0
"""Where the members of the compressed store's structures lie, by the kernel's build: no symbols describe them.

Two public descriptions were compared, and facts taken from them alone:

- Mandiant's (FLARE, 2019): "Extracting Compressed Pages from the Windows 10 Virtual Store" with the repositories
  win10_volatility and win10_auto; builds 14393 to 18362, x86 and x64.
- MemProcFS (vmm/mm/mm_win.c): builds from 14393 on.

They agree on every member below for builds 14393 to 18362 but one: how far apart 32-bit build 14393 has the pointers to
chunks, so that this build is left out. Build 18363 is 18362 with features switched on, as 19042 to 19045 are 19041.

For builds 19041 to 22000 MemProcFS alone knows that the owner's pointer has moved, and that nothing else has. They are
read because the dump itself tells whether that is so: what is found at the pointer's place has to be the process of
memory compression (`throwstack.pages.compressed_store` asks that of every build). From 22621 on the globals lie
elsewhere, from 26100 on pages are compressed by LZ4: MemProcFS alone says how, so that these builds are left out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """Offsets in bytes. `key_tree` is in SmGlobals, the chunk members and record sizes in the chunk metadata.

    All others are in an SMKM_STORE, whose members of its ST_DATA_MGR are counted from its own start, too.
    """

    pointer_size: int
    key_tree: int
    store_metadata_size: int
    pages_tree: int
    chunks: int
    region_mask: int
    region_shift: int
    chunk_pointer_size: int
    """How far apart the pointers to chunks lie."""
    algorithm: int
    regions: int
    owner: int

    @property
    def bit_value(self) -> int:
        """Return where the number of a region key's bits is that tell the record within its chunk."""
        return self.chunks + 32 * self.pointer_size + 8

    @property
    def size(self) -> int:
        """Return how much of an SMKM_STORE is read."""
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
    """Return the layout of a kernel's build, or None where it is not known, or not well enough."""
    for builds, x64, x86 in _BY_BUILD:
        if build in builds:
            return x64 if is_64bit else x86
    return None
