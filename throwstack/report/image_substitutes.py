# SPDX-License-Identifier: Apache-2.0
"""Notes which facts about a frame come from pages that the dump lacks and that were taken from an image's file."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from throwstack.core.frames import Frame
from throwstack.core.memory import PAGE_SIZE
from throwstack.images.image import Image, ImageMap


def substitute_note(frame: Frame, images: ImageMap, substitutes: AbstractSet[int]) -> str:
    """Return a note for `frame`, or "" if everything that the frame was derived from is in the dump.

    `substitutes` are the addresses of the pages that were taken from files (`ResolvedPages.substitutes`). A frame is
    derived from the page of its code and from its image's data: headers, function table, unwind information, exports.
    """
    address = frame.ip if frame.is_interrupted else frame.ip - 1
    image = images.find(address) if substitutes else None
    if image is None:
        return ""
    parts = []
    if address & -PAGE_SIZE in substitutes:
        parts.append("code")
    if _has_data(image, substitutes):
        parts.append("image data")
    return f"{' and '.join(parts)} of {image.module.name} from its file" if parts else ""


def _has_data(image: Image, substitutes: AbstractSet[int]) -> bool:
    """Say whether a page of the image's data is among `substitutes`; the shorter of the two is searched, for speed."""
    pages = range(image.base, image.base + image.module.size, PAGE_SIZE)
    if len(substitutes) < len(pages):
        taken = (page for page in substitutes if image.base <= page < image.base + image.module.size)
    else:
        taken = (page for page in pages if page in substitutes)
    return any(not image.is_code(page) for page in taken)
