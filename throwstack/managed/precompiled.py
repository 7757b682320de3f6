# SPDX-License-Identifier: Apache-2.0
"""The precompiled code of one process: from an address in a managed image to its method, whoever compiled it.

An image is looked at when an address in it is asked for. Most images of a process have no managed code, which the first
page of the image tells. What is inverted of a ReadyToRun image is shared between processes whose images have equal
bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from throwstack.core.memory import Memory
from throwstack.images.image import Image
from throwstack.managed.cli_header import CliHeader
from throwstack.managed.gc_info_x86 import decode_gc_header, frame_of
from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.method_indexes import MethodIndexes
from throwstack.managed.ngen import NgenImage
from throwstack.managed.precompiled_functions import PrecompiledMethod
from throwstack.managed.ready_to_run import ReadyToRun
from throwstack.managed.work import WorkSpent, metadata_work, precompiled_work
from throwstack.names.frame_records import FrameData

_MAX_KEPT = 4096


@dataclass(frozen=True, slots=True)
class _Image:
    """A managed image: its metadata and its precompiled code, or neither. `reason` says what is missing of it, or "".

    `is_managed` is False where not even that is known, because the image's headers cannot be read.
    """

    metadata: Metadata | None = None
    code: ReadyToRun | NgenImage | None = None
    reason: str = ""
    is_managed: bool = True


class PrecompiledCode:
    """The precompiled code of the managed images of one process."""

    __slots__ = ("_function_pointer", "_images", "_indexes", "_memory", "_metadata_work", "_work")

    def __init__(
        self, memory: Memory, indexes: MethodIndexes | None = None, *, function_pointer: str = "IntPtr"
    ) -> None:
        """The images are laid out in `memory`. `indexes` are shared between the processes of a dump.

        `function_pointer` is the runtime's word for a function pointer.
        """
        self._memory = memory
        self._function_pointer = function_pointer
        self._indexes = MethodIndexes() if indexes is None else indexes
        self._images: dict[int, _Image] = {}
        self._metadata_work, self._work = metadata_work(), precompiled_work()

    def method_at(self, base: int, rva: int) -> tuple[PrecompiledMethod, Metadata] | None:
        """Return the method whose code is at `rva` of the image at `base`, and the metadata with its row.

        None if no managed code is there, or if an absent or damaged part of the image hides it (`reason`).
        """
        image = self._image(base)
        if image.code is None or image.metadata is None:
            return None
        try:
            found = image.code.method_at(rva)
        except WorkSpent as error:
            self._images[base] = _Image(reason=str(error))
            return None
        except MetadataError as error:
            # A page is absent. It hides the methods whose search leads there, and no others.
            self._images[base] = replace(image, reason=str(error))
            return None
        return None if found is None else (found, image.metadata)

    def frame_data(self, image: Image, rva: int) -> FrameData | None:
        """Return the frame of the x86 method at `rva` of `image`, by its GC info; so this is a `FrameDataSource`.

        None outside precompiled code, and in prologues and epilogues, where the frame is not whole.
        """
        code = self._image(image.base).code
        try:
            found = None if code is None else code.gc_info(rva)
        except MetadataError:
            return None
        if found is None:
            return None
        info, offset = found
        header = decode_gc_header(self._memory, image.base + info)
        return frame_of(header, rva - offset) if header is not None and header.is_in_body(offset) else None

    def reason(self, base: int) -> str:
        """Return why no method is found in the image at `base`, "" if nothing is amiss, or it has no managed code."""
        return self._image(base).reason

    def reason_of_managed(self, base: int) -> str:
        """Return `reason`, but "" if it is not even known whether the image has managed code."""
        image = self._image(base)
        return image.reason if image.is_managed else ""

    def _image(self, base: int) -> _Image:
        if base not in self._images:
            if len(self._images) >= _MAX_KEPT:
                self._images.clear()
            self._images[base] = self._open(base)
        return self._images[base]

    def _open(self, base: int) -> _Image:
        try:
            header = CliHeader.read(self._memory, base)
        except MetadataError as error:
            return _Image(reason=str(error), is_managed=False)
        if header is None or not header.precompiled[1]:
            return _Image()
        try:
            word, work = self._function_pointer, self._metadata_work.part()
            metadata = Metadata(self._memory, header, work, function_pointer=word)
            if self._memory.read_available(header.address(header.precompiled[0]), 4) == b"NGE\0":
                return _Image(metadata, NgenImage(self._memory, header, self._work.part()))
            return _Image(metadata, ReadyToRun(self._memory, header, self._indexes, self._work.part()))
        except MetadataError as error:
            return _Image(reason=str(error))
