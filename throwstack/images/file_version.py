# SPDX-License-Identifier: Apache-2.0
"""Reads the file version of an image from its resources, `5.2.3790.3959`.

Resources are a tree of directories (PE/COFF specification, section .rsrc): by type, by name, by language. That of type
16 (RT_VERSION) is a VS_VERSIONINFO, in which a VS_FIXEDFILEINFO follows the key (verrsrc.h).
"""

from __future__ import annotations

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.images.image import Image

_RESOURCES = 2
"""The index of the resources' data directory."""
_VERSION = 16
_IS_DIRECTORY = 1 << 31
_MAX_TYPES = 256
"""How many resource types are looked through."""
_KEY_SIZE = 40
"""The size of VS_VERSIONINFO up to its value: three lengths, and `VS_VERSION_INFO` with its zero, padded to 4 bytes."""
_SIGNATURE = 0xFEEF04BD


def file_version(image: Image) -> str:
    """Return the file version of `image`, four numbers; "" if the image has none or the dump does not hold it."""
    if image.headers is None:
        return ""
    try:
        resources = _resources(image.memory, image.base, image.headers.arch.pointer_size)
        return _read(image.memory, image.base, resources) if resources else ""
    except MemoryUnreadable:
        return ""


def _resources(memory: Memory, base: int, pointer_size: int) -> int:
    """Return the RVA of the resources in the third data directory, 0 if the image has none."""
    optional = base + memory.u32(base + 0x3C) + 24
    count, first = (108, 112) if pointer_size == 8 else (92, 96)
    return memory.u32(optional + first + 8 * _RESOURCES) if memory.u32(optional + count) > _RESOURCES else 0


def _read(memory: Memory, base: int, resources: int) -> str:
    root = base + resources
    names = _entry(memory, root, _VERSION)
    languages = None if names is None else _entry(memory, root + names, None)
    data = None if languages is None else _entry(memory, root + languages, None)
    if data is None:
        return ""
    value = base + memory.u32(root + data) + _KEY_SIZE
    if memory.u32(value) != _SIGNATURE:
        return ""
    high, low = memory.u32(value + 8), memory.u32(value + 12)
    return f"{high >> 16}.{high & 0xFFFF}.{low >> 16}.{low & 0xFFFF}"


def _entry(memory: Memory, directory: int, wanted: int | None) -> int | None:
    """Return the offset to which the entry `wanted` of a directory leads, or its first entry's; None if it has none."""
    count = memory.u16(directory + 12) + memory.u16(directory + 14)
    for index in range(min(count, _MAX_TYPES)):
        entry = directory + 16 + 8 * index
        if wanted is None or memory.u32(entry) == wanted:
            return memory.u32(entry + 4) & ~_IS_DIRECTORY
    return None
