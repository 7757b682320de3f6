# SPDX-License-Identifier: Apache-2.0
"""What was read from PDBs and is kept in memory, up to a number of bytes for the whole process.

The parts of PDBs that are in use can be large: a module of one compiled file can have a million functions. So what was
made from them is forgotten when it was not used for the longest time, and made again if it is asked for once more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar, cast

LIMIT = 40 << 20


Key = tuple[int, Hashable]
"""The number of the owner of a part, and what the part is."""


class Sized(Protocol):
    """Something that knows how much memory it takes."""

    @property
    def kept_bytes(self) -> int:
        """Return about how many bytes of memory this takes."""
        ...


Part = TypeVar("Part", bound=Sized)


class Kept:
    """Parts by key, those that were used last. Together they have at most `limit` bytes, or there is only one."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._parts: OrderedDict[Key, Sized] = OrderedDict()
        self.size = 0
        """The bytes of all parts."""

    def get(self, key: Key, make: Callable[[], Part]) -> Part:
        """Return the part with `key`, which `make` makes if it is not kept. One key always has parts of one class."""
        found = self._parts.get(key)
        if found is not None:
            self._parts.move_to_end(key)
            return cast("Part", found)
        made = make()
        self._parts[key] = made
        self.size += made.kept_bytes
        while self.size > self._limit and len(self._parts) > 1:
            _, part = self._parts.popitem(last=False)
            self.size -= part.kept_bytes
        return made

    def forget(self, owner: int) -> None:
        """Forget all parts of `owner`."""
        for key in [key for key in self._parts if key[0] == owner]:
            self.size -= self._parts.pop(key).kept_bytes


KEPT = Kept()
"""What this process keeps."""
