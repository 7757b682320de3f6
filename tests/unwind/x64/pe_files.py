# SPDX-License-Identifier: Apache-2.0
"""PE files laid out in memory as the loader does it, for tests against real images."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pefile

from throwstack.core.memory import Memory
from throwstack.images.image import Image, ImageMap
from throwstack.images.modules import Module, ModuleMap

_SUFFIXES = {".dll", ".pyd", ".exe", ".sys"}
_X64 = 0x8664


class FlatSource:
    """A page source over one flat byte string at `base`."""

    def __init__(self, base: int, data: bytes) -> None:
        self._base = base
        self._data = data + bytes(-len(data) % 0x1000)

    def page(self, address: int) -> bytes | None:
        offset = address - self._base
        return self._data[offset : offset + 0x1000] if 0 <= offset < len(self._data) else None


def map_image(pe: pefile.PE) -> bytes:
    """Return the image as it is in memory, without relocations applied."""
    mapped = bytearray(pe.OPTIONAL_HEADER.SizeOfImage)
    raw = pe.__data__
    head = raw[: pe.OPTIONAL_HEADER.SizeOfHeaders]
    mapped[: len(head)] = head
    for section in pe.sections:
        size = min(section.SizeOfRawData, max(section.Misc_VirtualSize, 1))
        data = raw[section.PointerToRawData : section.PointerToRawData + size]
        mapped[section.VirtualAddress : section.VirtualAddress + len(data)] = data
    return bytes(mapped)


def open_image(path: Path, base: int | None = None) -> tuple[ImageMap, Image] | None:
    """Return the x64 image in `path` at `base` or its preferred base, or None if it is another sort of file."""
    try:
        pe = pefile.PE(str(path), fast_load=True)
    except pefile.PEFormatError:
        return None
    if pe.FILE_HEADER.Machine != _X64:
        return None
    base = pe.OPTIONAL_HEADER.ImageBase if base is None else base
    module = Module(path.name, str(path), base, pe.OPTIONAL_HEADER.SizeOfImage)
    images = ImageMap(Memory(FlatSource(base, map_image(pe)), capacity=1 << 16), ModuleMap([module]))
    image = images.find(base)
    assert image is not None
    return images, image


def find_files(directories: list[Path], unpacked: Path | None = None) -> Iterator[Path]:
    """Yield the PE files below the directories; with `unpacked`, wheels are opened into it first."""
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.suffix.lower() in _SUFFIXES and path.is_file():
                yield path
            elif path.suffix == ".whl" and unpacked is not None:
                target = unpacked / path.stem
                with zipfile.ZipFile(path) as wheel:
                    members = [name for name in wheel.namelist() if Path(name).suffix.lower() in _SUFFIXES]
                    wheel.extractall(target, members)
                yield from find_files([target])


def directories_of_environment() -> list[Path]:
    """Return the directories that THROWSTACK_PE_DIRS lists."""
    return [Path(part) for part in os.environ.get("THROWSTACK_PE_DIRS", "").split(os.pathsep) if part]
