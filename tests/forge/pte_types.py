# SPDX-License-Identifier: Apache-2.0
"""The kernel's _MMPTE types in the size of the machine's PTEs, for a layout that has them in the other size.

A 32-bit Windows has two kernels, with and without PAE, and a layout comes from one of them. The ISF that goes with a
dump says what is in the dump. Formats: those of Server 2003. Also the few types that a layout lacks which was cut down.
"""

from __future__ import annotations

from typing import Any

from tests.forge.layouts import Layout

_HARDWARE = "Valid Write Owner WriteThrough CacheDisable Accessed Dirty LargePage Global CopyOnWrite Prototype reserved"

_FORMS: dict[str, dict[int, str]] = {
    "_MMPTE_HARDWARE": {
        4: f"{_HARDWARE} PageFrameNumber:20",
        8: f"{_HARDWARE} PageFrameNumber:26 reserved1:26",
    },
    "_MMPTE_PROTOTYPE": {
        4: "Valid ProtoAddressLow:7 ReadOnly WhichPool Prototype ProtoAddressHigh:21",
        8: "Valid Unused0:7 ReadOnly Unused1 Prototype Protection:5 Unused:16 ProtoAddress:32",
    },
    "_MMPTE_SOFTWARE": {
        4: "Valid PageFileLow:4 Protection:5 Prototype Transition PageFileHigh:20",
        8: "Valid PageFileLow:4 Protection:5 Prototype Transition Unused:20 PageFileHigh:32",
    },
    "_MMPTE_TRANSITION": {
        4: "Valid Write Owner WriteThrough CacheDisable Protection:5 Prototype Transition PageFrameNumber:20",
        8: "Valid Write Owner WriteThrough CacheDisable Protection:5 Prototype Transition PageFrameNumber:26 Unused:26",
    },
    "_MMPTE_SUBSECTION": {
        4: "Valid SubsectionAddressLow:4 Protection:5 Prototype SubsectionAddressHigh:20 WhichPool",
        8: "Valid Unused0:4 Protection:5 Prototype Unused1:21 SubsectionAddress:32",
    },
}
_MEMBERS = {
    "Hard": "_MMPTE_HARDWARE",
    "Proto": "_MMPTE_PROTOTYPE",
    "Soft": "_MMPTE_SOFTWARE",
    "Trans": "_MMPTE_TRANSITION",
    "Subsect": "_MMPTE_SUBSECTION",
}

PAGING_FILE_SIZE, PAGING_FILE_FLAGS = 0x120, 0xCC
"""Size of an _MMPAGING_FILE, and where its number and its kind are."""


def mask_types() -> dict[str, Any]:
    """Return MiState's type with the mask of invalid PTEs alone, at its start: for a layout that was cut down."""
    mask = {"InvalidPteMask": {"offset": 0, "type": {"kind": "base", "name": "unsigned long long"}}}
    hardware = {"Hardware": {"offset": 0, "type": {"kind": "struct", "name": "_MI_HARDWARE_STATE"}}}
    return {
        "_MI_HARDWARE_STATE": {"kind": "struct", "size": 8, "fields": mask},
        "_MI_SYSTEM_INFORMATION": {"kind": "struct", "size": 8, "fields": hardware},
    }


def store_types(*, is_64bit: bool) -> dict[str, Any]:
    """Return the types that lead to the store's page file, for a layout that was cut down."""
    pointer = {"kind": "pointer", "subtype": {"kind": "base", "name": "void"}}
    files = {"offset": 0x20, "type": {"kind": "array", "count": 16, "subtype": pointer}}
    visible = {"offset": 0, "type": {"kind": "struct", "name": "_MI_VISIBLE_PARTITION"}}
    word = {"kind": "base", "name": "unsigned short"}
    flag = {"kind": "bitfield", "bit_position": 6, "bit_length": 1, "type": word}
    size = 0x20 + 16 * (8 if is_64bit else 4)
    flags = {"VirtualStorePagefile": {"offset": PAGING_FILE_FLAGS, "type": flag}}
    return {
        "_MI_VISIBLE_PARTITION": {"kind": "struct", "size": size, "fields": {"PagingFile": files}},
        "_MI_PARTITION": {"kind": "struct", "size": size, "fields": {"Vp": visible}},
        "_MMPAGING_FILE": {"kind": "struct", "size": PAGING_FILE_SIZE, "fields": flags},
    }


def pte_types(layout: Layout, size: int) -> dict[str, Any]:
    """Return the types to replace in a layout's ISF: none when its PTEs have the machine's size."""
    if layout.pte_size == size:
        return {}
    base = {"kind": "base", "name": "unsigned long" if size == 4 else "unsigned long long"}
    types: dict[str, Any] = {}
    for name, forms in _FORMS.items():
        fields, position = {}, 0
        for member in forms[size].split():
            label, _, width = member.partition(":")
            bits = {"kind": "bitfield", "bit_position": position, "bit_length": int(width or 1), "type": base}
            fields[label] = {"offset": 0, "type": bits}
            position += int(width or 1)
        types[name] = {"kind": "struct", "size": size, "fields": fields}
    members = {label: {"offset": 0, "type": {"kind": "struct", "name": name}} for label, name in _MEMBERS.items()}
    members["Long"] = {"offset": 0, "type": base}
    types["_MMPTE_forms"] = {"kind": "union", "size": size, "fields": members}
    inner = {"u": {"offset": 0, "type": {"kind": "union", "name": "_MMPTE_forms"}}}
    types["_MMPTE"] = {"kind": "struct", "size": size, "fields": inner}
    return types
