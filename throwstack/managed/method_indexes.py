# SPDX-License-Identifier: Apache-2.0
"""Keeps the inverted method tables of precompiled images (`ready_to_run`), shared between the processes of a dump."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from throwstack.managed.native_format import NativeSection

_MAX_INDEXED = 1 << 19
"""The most methods that are kept of all images; the largest image of .NET 8 has 37,000."""
Methods = Mapping[int, tuple[int, bool]]
"""By the number of a method's first function: its row in MethodDef, and whether it is an instance."""


class MethodIndexes:
    """Inverted sections of images, kept by the sections' bytes, for all processes of a dump.

    Which section has the bytes is part of the key. Else an image that has these bytes as the other section, and has
    not the first one, would decide what is read of the first one in another process.
    """

    __slots__ = ("_by_digest", "_methods")

    def __init__(self) -> None:
        """Make an empty cache."""
        self._by_digest: dict[tuple[bytes | None, bytes | None], Methods] = {}
        self._methods = 0

    def get(
        self, methods: NativeSection | None, instances: NativeSection | None, make: Callable[[], Methods]
    ) -> Methods:
        """Return what `make` makes of sections 103 and 109 of an image, or has made of ones with the same bytes."""
        key = None if methods is None else methods.digest, None if instances is None else instances.digest
        if key not in self._by_digest:
            made = make()
            self._methods += 1 + len(made)
            if self._methods > _MAX_INDEXED:
                self._by_digest.clear()
                self._methods = 1 + len(made)
            self._by_digest[key] = made
        return self._by_digest[key]
