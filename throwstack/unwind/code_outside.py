# SPDX-License-Identifier: Apache-2.0
"""Code outside images: what is known of an address there, for the unwinders of both architectures.

JIT compilers, hook libraries and runtimes of other languages make code at run time, in private memory or in a section
without a file. Two things may be known of such an address:

- The process's regions (`throwstack.core.regions`) say whether code can run there at all.
- A `FunctionSource` says which function is there: its name, and how to unwind it. The runtime of .NET, the lists of
  dynamic function tables, and whatever else knows functions outside images can be such a source.

What is not known is labelled as a guess by the unwinders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from throwstack.core.regions import Region, Regions
from throwstack.images.function_table import RuntimeFunction
from throwstack.images.image import ImageMap
from throwstack.names.frame_records import FrameData


@dataclass(frozen=True, slots=True)
class OutsideFunction:
    """What a source knows of the function at an address outside the images.

    `source` says who knows it, in words for the note of a frame: `dynamic function table at 0x…`. `name` is the
    function's name, "" if it has none. On x64, `entry` is its RUNTIME_FUNCTION, whose RVAs count from `base`; `entry`
    is None if the source has no unwind data. `has_frame_pointer` says that rbp (ebp) is known to point at the saved
    rbp of the caller, with the return address above. On x86, `frame` describes the whole frame, as a record of a PDB
    would; it is None if the source does not know it. `start` is the address at which the code begins, 0 if the source
    does not know it.
    """

    source: str
    name: str = ""
    base: int = 0
    entry: RuntimeFunction | None = None
    has_frame_pointer: bool = False
    frame: FrameData | None = None
    start: int = 0


class FunctionSource(Protocol):
    """A source of functions outside images."""

    def function_at(self, address: int) -> OutsideFunction | None:
        """Return the function whose code is at `address`, or None. The source bounds its own work."""
        ...


class CodeOutside:
    """The code of one address space that is not in its images. Regions and sources are asked when they are needed."""

    __slots__ = ("_images", "_regions", "_sources")

    def __init__(
        self, images: ImageMap, regions: Regions | None = None, sources: Sequence[FunctionSource] = ()
    ) -> None:
        """`images` are the images of the address space, and have its memory.

        `regions` are the regions of the process, None if they are not known. `sources` know functions; the first one
        that knows the function at an address is believed.
        """
        self._images = images
        self._regions = regions
        self._sources = tuple(sources)

    def region(self, address: int) -> Region | None:
        """Return the region that holds `address`; None if it is not known."""
        return None if self._regions is None else self._regions.find(address)

    def is_code(self, address: int) -> bool | None:
        """Say whether code can run at `address`, which is outside the images.

        True if the region allows it, or if a source knows a function there. False if `address` is in an image, if the
        region forbids it, or if the region is not known and the memory is not readable. None if the region is not known
        and the memory is readable: then it can be anything.
        """
        if self._images.find(address) is not None:
            return False
        region = self.region(address)
        if region is None and not self._images.memory.is_readable(address):
            return False
        if region is not None and region.is_executable:
            return True
        if self.function(address) is not None:
            return True
        return None if region is None else False

    def is_known_code(self, address: int) -> bool:
        """Say whether code is known to be at `address`: what `is_code` says is True and not merely possible."""
        return self.is_code(address) is True

    def function(self, address: int) -> OutsideFunction | None:
        """Return what is known of the function at `address`, which is outside the images; None if nothing is."""
        for source in self._sources:
            found = source.function_at(address)
            if found is not None:
                return found
        return None

    def describe(self, address: int) -> str:
        """Say what kind of memory `address` is in, for the note of a frame: `private memory`; "" if not known."""
        region = self.region(address)
        return "" if region is None else region.kind.value
