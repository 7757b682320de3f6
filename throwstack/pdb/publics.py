# SPDX-License-Identifier: Apache-2.0
"""Finds public symbols of a PDB, by address and by name. Microsoft's symbol server has PDBs with little else.

Follows LLVM's "The PDB Public Symbol Stream" and `cvinfo.h`. The publics stream has a hash table for names and a map of
addresses: the offsets of the symbol records in the order of the symbols' addresses. A public symbol has an address and
its name as in the object file, decorated, but no size.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from throwstack.pdb.codeview import string
from throwstack.pdb.msf import Stream
from throwstack.pdb.name_hash import NameHash
from throwstack.pdb.ranges import key_of
from throwstack.pdb.sorted_keys import SortedKeys
from throwstack.pdb.time_limit import NO_LIMIT, TimeLimit

_HEAD = struct.Struct("<II20x")
_PUBLIC = struct.Struct("<HHIIH")
_S_PUB32 = 0x110E
_IS_FUNCTION = 2
_MAX_TOGETHER = 4096
_MICROSOFT, _ITANIUM = re.compile(rb"\?([A-Za-z_]\w*)@@Y"), re.compile(rb"_Z(\d{1,3})([A-Za-z_]\w*)")
"""How the decorated names of C++ functions begin that are in no class and no namespace."""
_MAX_GLOBAL = 1 << 16
_WINDOW, _OVERLAP = 1 << 20, 1 << 9
_MAX_NAME = 256
"""How many bytes are read with a record at once. Longer names take another read."""


@dataclass(frozen=True, slots=True)
class PublicSymbol:
    """A public symbol. `name` is decorated as in the object file."""

    name: str
    section: int
    offset: int
    is_function: bool


class Publics:
    """The public symbols of a PDB."""

    def __init__(
        self, stream: Stream, symbols: Stream, *, is_fastlink: bool = False, time: TimeLimit = NO_LIMIT
    ) -> None:
        """`stream` is the publics stream, and `symbols` that of the symbol records.

        `time` is how long the reading of the PDB may take.
        """
        self._time = time
        self._stream = stream
        self._symbols = symbols
        head = stream.read(0, _HEAD.size)
        hash_size: int
        map_size: int
        hash_size, map_size = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
        self._hash = NameHash(stream, _HEAD.size, is_fastlink=is_fastlink)
        self._map_at = _HEAD.size + hash_size
        self._count = max(0, min(map_size, stream.size - self._map_at)) // 4
        self._keys = SortedKeys(self._count, self._key)

    def __len__(self) -> int:
        return self._count

    def nearest(self, section: int, offset: int) -> tuple[PublicSymbol, ...]:
        """Return the symbols at the last place at or before this one, in the same section. Raises `NotAPdb`.

        There are several if the linker folded functions with the same code. Functions come first.
        """
        last = self._keys.last_at_or_before(key_of(section, offset))
        if last < 0 or self._keys[last] >> 32 != section:
            return ()
        return self._together(last)

    def at(self, section: int, offset: int) -> tuple[PublicSymbol, ...]:
        """Return the symbols at exactly this place, functions first. Raises `NotAPdb`."""
        key = key_of(section, offset)
        last = self._keys.last_at_or_before(key)
        return self._together(last) if last >= 0 and self._keys[last] == key else ()

    def named(self, name: str) -> Iterator[PublicSymbol]:
        """Yield the symbols whose decorated name is `name`. Raises `NotAPdb`."""
        self._time.check()
        for offset in self._hash.offsets(name):
            symbol = self._read(offset)
            if symbol is not None and symbol.name == name:
                yield symbol

    def beginning(self, prefixes: tuple[bytes, ...]) -> Iterator[PublicSymbol]:
        """Yield the symbols whose decorated name begins with one of `prefixes`. Raises `NotAPdb`.

        This reads all symbol records, a megabyte at a time.
        """
        for base, data in self._windows():
            for prefix in prefixes:
                self._time.check()
                at = data.find(prefix, _PUBLIC.size)
                while 0 <= at < _WINDOW + _PUBLIC.size:
                    symbol = self._read(base + at - _PUBLIC.size)
                    if symbol is not None and symbol.name.encode("utf-8", "replace").startswith(prefix):
                        yield symbol
                    at = data.find(prefix, at + 1)

    def outside_scopes(self, name: str) -> Iterator[PublicSymbol]:
        """Yield the symbols that may be of a C++ function `name` in no class and no namespace. Raises `NotAPdb`.

        When this is asked first, all symbol records are read: mostly it is asked for functions that are not there.
        """
        for at in self._outside_scopes.get(name, ()):
            symbol = self._read(at)
            if symbol is not None:
                yield symbol

    @cached_property
    def _outside_scopes(self) -> dict[str, list[int]]:
        """Where the records of functions in no scope may be, by name."""
        found: dict[str, list[int]] = {}
        for base, data in self._windows():
            self._time.check()
            named = [(match.start(), match[1]) for match in _MICROSOFT.finditer(data)]
            for match in _ITANIUM.finditer(data):  # x86 has another underscore in front
                named += [(match.start() - extra, match[2][: int(match[1])]) for extra in (0, 1)]
            for at, name in named:
                places = found.setdefault(name.decode("utf-8", "replace"), [])
                if len(places) < _MAX_TOGETHER:
                    places.append(base + at - _PUBLIC.size)
            if len(found) > _MAX_GLOBAL:
                break
        return found

    def _windows(self) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of parts of the symbol records, each with the beginning of the next."""
        for base in range(0, self._symbols.size, _WINDOW):
            yield base, self._symbols.read(base, _WINDOW + _OVERLAP)

    def _together(self, last: int) -> tuple[PublicSymbol, ...]:
        """Return the symbols up to number `last` that have the address of that one, functions first."""
        first = last
        while first > 0 and last - first < _MAX_TOGETHER and self._keys[first - 1] == self._keys[last]:
            first -= 1
        read = (self._read(self._offset(index)) for index in range(first, last + 1))
        return tuple(sorted((symbol for symbol in read if symbol is not None), key=lambda one: not one.is_function))

    def _offset(self, index: int) -> int:
        return int.from_bytes(self._stream.read(self._map_at + 4 * index, 4), "little")

    def _key(self, index: int) -> int:
        data = self._symbols.read(self._offset(index), _PUBLIC.size)
        if len(data) < _PUBLIC.size:
            return 0
        _, _, _, offset, section = _PUBLIC.unpack(data)
        return key_of(section, offset)

    def _read(self, at: int) -> PublicSymbol | None:
        """Return the public symbol whose record is at offset `at`, or None if there is another record or none."""
        data = self._symbols.read(at, _PUBLIC.size + _MAX_NAME)
        if len(data) < _PUBLIC.size:
            return None
        length, kind, flags, offset, section = _PUBLIC.unpack_from(data)
        if kind != _S_PUB32:
            return None
        if length + 2 > len(data):
            data = self._symbols.read(at, length + 2)
        return PublicSymbol(string(data[: length + 2], _PUBLIC.size)[0], section, offset, bool(flags & _IS_FUNCTION))
