# SPDX-License-Identifier: Apache-2.0
"""From a Module, the runtime's structure for a managed image, to the image and its metadata.

With a contract the way is known: Module, PEAssembly, PEImage, its layout, {base, flags}. Bit 0 of the flags says that
the image is laid out by its sections; else its file is in memory as it is on disk.

Without one, the image is looked for: its base is within three pointers of the Module, in structures whose members
differ by version (.NET Core 2.1 and 3.1: PEFile, PEImage; .NET 8: PEAssembly, PEImage, layout). Several images can be
reached. The caller tells by the type that the image must have. Such a way, once right, is tried first for the other
Modules of the process. In an image that NGEN has compiled, the Module itself is in the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from throwstack.core.memory import MemoryUnreadable
from throwstack.images.image import ImageMap
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.runtime_layout import RuntimeLayout
from throwstack.managed.runtime_memory import LOWEST, RuntimeMemory, StructureError
from throwstack.managed.work import metadata_work

_READ_AT_STEP = (0x300, 0xC0, 0x180, 0x80)
"""How many bytes of a structure are looked at, by its distance from the Module in pointers."""
_MAX_STRUCTURES = 1500
"""The most structures that are looked at in one step."""
_MAX_FOUND = 8
_MAX_KEPT_WAYS = 8
_WORDS_A_PLACE, _PLACES_AN_IMAGE = 16, 16
"""How many words that may lead to an image cost as much as a place, and how many places an image's headers cost."""
_IS_LAID_OUT = 1
_FLAT_ALIGNMENT = 16

Way = tuple[int, ...]


class ModuleImages:
    """The managed images of one process, by Module."""

    __slots__ = ("_bases", "_by_base", "_by_module", "_images", "_layout", "_looked_at", "_memory", "_ways", "_work")

    def __init__(self, memory: RuntimeMemory, layout: RuntimeLayout, images: ImageMap) -> None:
        """`images` are those in the loader's list. Images that only the runtime knows are found too."""
        self._memory = memory
        self._layout = layout
        self._images = images
        self._bases = {image.base for image in images}
        self._by_base: dict[int, Metadata | str | None] = {}
        self._by_module: dict[int, tuple[int, ...]] = {}
        self._ways: list[Way] = []
        self._looked_at = 0
        self._work = metadata_work()

    def metadata(self, base: int) -> Metadata:
        """Return the metadata of the image at `base`. Raises MetadataError with the reason why there are none."""
        known = self._read(base, (False,) if base in self._bases else (False, True))
        if known is None:
            message = f"the image at {base:#x} is not managed"
            raise MetadataError(message)
        if isinstance(known, str):
            raise MetadataError(known)
        return known

    def base_of_contract(self, module: int) -> int:
        """Return the base of the image of `module` by the contract. Raises StructureError, MemoryUnreadable."""
        contract, memory = self._layout.contract, self._memory
        if contract is None:
            message = "the runtime has no contract"
            raise StructureError(message)
        assembly = memory.word(module + contract.offset("Module", "PEAssembly"))
        image = memory.word(assembly + contract.offset("PEAssembly", "PEImage"))
        loaded = memory.word(image + contract.offset("PEImage", "LoadedImageLayout"))
        base = memory.word(loaded + contract.offset("PEImageLayout", "Base"))
        flags = memory.memory.u32(loaded + contract.offset("PEImageLayout", "Flags"))
        self._read(base, (not flags & _IS_LAID_OUT,))
        return base

    def is_known_module(self, address: int) -> bool:
        """Say whether a Module at this address has led to an image."""
        return bool(self._by_module.get(address))

    def candidates(self, module: int) -> Iterator[int]:
        """Yield bases of managed images that `module` may be that of, the likeliest first."""
        image = self._images.find(module)
        if image is not None:
            if self._is_listed(image.base):
                self._by_module[module] = (image.base,)
                yield image.base
            return
        if module in self._by_module:
            yield from self._by_module[module]
            return
        found: dict[int, None] = {}
        for base in chain(self._followed(module), self._search(module, self._is_listed), self._unlisted(module)):
            if base not in found:
                found[base] = None
                yield base
            if len(found) >= _MAX_FOUND:
                break
        self._by_module[module] = tuple(found)

    def confirm(self, module: int, base: int) -> None:
        """Note that `base` is the image of `module`: a type of the module is in its metadata."""
        self._by_module[module] = (base,)

    def _followed(self, module: int) -> Iterator[int]:
        """Yield the images at the ends of the ways that were right for other Modules."""
        for way in self._ways:
            at = module
            try:
                for step in way:
                    at = self._memory.word(at + step)
            except MemoryUnreadable:
                continue
            if self._is_listed(at) or self._is_unlisted(at):
                yield at

    def _unlisted(self, module: int) -> Iterator[int]:
        """Yield images that are not in the loader's list, as in a single-file application."""
        return self._search(module, self._is_unlisted)

    def _search(self, module: int, is_image: Callable[[int], bool]) -> Iterator[int]:
        """Yield the bases of managed images within a few pointers of `module`, nearest first."""
        memory = self._memory
        seen = {module}
        level: list[tuple[int, Way]] = [(module, ())]
        for size in _READ_AT_STEP:
            following: list[tuple[int, Way]] = []
            for structure, way in level[:_MAX_STRUCTURES]:
                memory.spend()
                for index, value in enumerate(memory.words(structure, size // memory.size)):
                    if value in seen or value < LOWEST or value % memory.size:
                        continue
                    seen.add(value)
                    step = (*way, index * memory.size)
                    if is_image(value):
                        self._keep(step)
                        yield value
                    elif self._images.find(value) is None:
                        following.append((value, step))
            level = following

    def _keep(self, way: Way) -> None:
        if way not in self._ways and len(self._ways) < _MAX_KEPT_WAYS:
            self._ways.append(way)

    def _is_listed(self, address: int) -> bool:
        """Say whether `address` is the base of an image in the loader's list that is managed, or may be."""
        return address in self._bases and self._read(address, (False,)) is not None

    def _is_unlisted(self, address: int) -> bool:
        """Say whether a managed image that is in no list begins at `address`, laid out or flat. Raises BudgetSpent."""
        self._looked_at += 1
        if not self._looked_at % _WORDS_A_PLACE:
            self._memory.spend()
        if address % _FLAT_ALIGNMENT or address in self._bases or self._images.find(address) is not None:
            return False
        if self._memory.memory.read_available(address, 2) != b"MZ":
            return False
        return isinstance(self._read(address, (False, True)), Metadata)

    def _read(self, base: int, forms: tuple[bool, ...]) -> Metadata | str | None:
        """Return the metadata of the image at `base`, the reason why they cannot be read, or None: not managed."""
        if base not in self._by_base:
            self._memory.spend(_PLACES_AN_IMAGE)
            self._by_base[base] = self._opened(base, forms)
        return self._by_base[base]

    def _opened(self, base: int, forms: tuple[bool, ...]) -> Metadata | str | None:
        """Return the metadata of the image at `base`, flat or laid out as `forms` say.

        If they cannot be read, the result is the reason; None if the image is not managed.
        """
        reason, memory, word = None, self._memory.memory, self._layout.function_pointer
        for is_flat in forms:
            try:
                found = Metadata.of_image(memory, base, self._work.part(), is_flat=is_flat, function_pointer=word)
            except MetadataError as error:
                reason = str(error)
                continue
            if found is not None:
                return found
        return reason
