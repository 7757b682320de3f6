# SPDX-License-Identifier: Apache-2.0
"""Finds images that were unloaded. ntdll and the kernel record them, so that old addresses in them still get a name.

ntdll keeps the last 64 (16 before Vista) in an array that RtlGetUnloadEventTrace returns. Microsoft documents its
element, RTL_UNLOAD_EVENT_TRACE. Later versions of Windows append two words of a version to it, and nothing in the array
says so: on x64 an element has 96 bytes without and 104 with them. So the array is read with both sizes, and the reading
that gives more plausible elements is taken.

The kernel keeps the last 50 drivers at MmUnloadedDrivers. An element is a UNICODE_STRING, start address, end address
and the time of the unloading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from throwstack.core.memory import PAGE_SIZE, Memory, MemoryUnreadable
from throwstack.core.registers import Arch
from throwstack.images.image import Image
from throwstack.names.symbols import Name, export_table

TRACE_FUNCTION = "RtlGetUnloadEventTrace"
_TRACES, _DRIVERS = 64, 50
_NAME_CHARACTERS = 32
_MAX_IMAGE = 1 << 31
_MAX_NAME_BYTES = 520
_RETURNS_ADDRESS = {
    # mov eax,imm32; ret (with room for a hot patch, with a frame pointer)
    Arch.X86: re.compile(rb"(?:\x8b\xff)?(?:\x55(?:\x8b\xec|\x89\xe5))?\xb8(....)\x5d?\xc3", re.DOTALL),
    Arch.X64: re.compile(rb"\x48\x8d\x05(....)\xc3", re.DOTALL),  # lea rax,[rip+rel32]; ret
}


@dataclass(frozen=True, slots=True)
class UnloadedImage:
    """An image that was unloaded. Of two images, the one with the higher `order` was unloaded later."""

    name: str
    base: int
    size: int
    order: int

    def contains(self, address: int) -> bool:
        """Say whether `address` was in the image."""
        return self.base <= address < self.base + self.size


def name_of_unloaded(images: tuple[UnloadedImage, ...], address: int) -> Name | None:
    """Return the name that WinDbg shows for an address in an unloaded image, `<Unloaded_x.dll>+0x1234`, or None."""
    found = [image for image in images if image.contains(address)]
    if not found:
        return None
    last = max(found, key=lambda image: image.order)
    return Name(address, f"<Unloaded_{last.name}>", "", address - last.base)


def unloaded_dlls(ntdll: Image, arch: Arch, array: int | None = None) -> tuple[UnloadedImage, ...]:
    """Return the unloaded DLLs that `ntdll` has recorded.

    `array` is the address of RtlpUnloadEventTrace, the array of records, if symbols have it. It is used if the code of
    RtlGetUnloadEventTrace does not show the address.
    """
    address = _returned_address(ntdll, arch) or array
    if address is None:
        return ()
    pointer = arch.pointer_size
    plain = -(-(2 * pointer + 12 + 2 * _NAME_CHARACTERS) // pointer) * pointer
    with_version = -(-(2 * pointer + 20 + 2 * _NAME_CHARACTERS) // pointer) * pointer
    readings = [_traces(ntdll.memory, address, stride, pointer) for stride in (plain, with_version)]
    return max(readings, key=len)


def _returned_address(ntdll: Image, arch: Arch) -> int | None:
    rva = export_table(ntdll).rva_of(TRACE_FUNCTION)
    if rva is None:
        return None
    start = ntdll.base + rva
    code = _RETURNS_ADDRESS[arch].match(ntdll.memory.read_available(start, 16))
    if code is None:
        return None
    value = int.from_bytes(code[1], "little", signed=arch is Arch.X64)
    address = start + 7 + value if arch is Arch.X64 else value
    return address if ntdll.module.contains(address) else None


def _traces(memory: Memory, array: int, stride: int, pointer: int) -> tuple[UnloadedImage, ...]:
    """Return the elements of the array, up to the first that is not plausible or not in memory.

    `stride` is the size of an element in bytes, and `pointer` that of a pointer. Unused elements are zero and are left
    out.
    """
    found = []
    for index in range(_TRACES):
        try:
            element = memory.read(array + index * stride, stride)
        except MemoryUnreadable:
            break
        base = int.from_bytes(element[:pointer], "little")
        size = int.from_bytes(element[pointer : 2 * pointer], "little")
        sequence = int.from_bytes(element[2 * pointer : 2 * pointer + 4], "little")
        raw = element[2 * pointer + 12 : 2 * pointer + 12 + 2 * _NAME_CHARACTERS]
        name = raw.decode("utf-16-le", "replace").split("\0", 1)[0]
        if not base and not size:
            continue
        if base % PAGE_SIZE or not base or not 0 < size <= _MAX_IMAGE or not name.isprintable() or not name:
            break
        found.append(UnloadedImage(name, base, size, sequence))
    return tuple(found)


def unloaded_drivers(memory: Memory, variable: int, pointer: int) -> tuple[UnloadedImage, ...]:
    """Return the unloaded drivers that the kernel has recorded.

    `variable` is the address of MmUnloadedDrivers, which points to the array; `pointer` is the size of a pointer in
    bytes.
    """
    try:
        array = int.from_bytes(memory.read(variable, pointer), "little")
    except MemoryUnreadable:
        return ()
    return tuple(_drivers(memory, array, pointer)) if array else ()


def _drivers(memory: Memory, array: int, pointer: int) -> Iterator[UnloadedImage]:
    stride = 4 * pointer + 8
    for index in range(_DRIVERS):
        try:
            element = memory.read(array + index * stride, stride)
            length = int.from_bytes(element[:2], "little")
            buffer, start, end = (
                int.from_bytes(element[at * pointer : (at + 1) * pointer], "little") for at in (1, 2, 3)
            )
            if not 0 < length <= _MAX_NAME_BYTES or start % PAGE_SIZE or not 0 < end - start <= _MAX_IMAGE:
                continue
            name = memory.read(buffer, length & ~1).decode("utf-16-le", "replace")
        except MemoryUnreadable:
            continue
        # The array is a ring buffer, so the time and not the index tells which driver was unloaded last.
        yield UnloadedImage(name, start, end - start, int.from_bytes(element[-8:], "little"))
