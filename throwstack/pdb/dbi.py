# SPDX-License-Identifier: Apache-2.0
"""Reads the DBI stream of a PDB: the modules it was linked from, which code each contributed, further streams.

Follows LLVM's "The PDB DBI Stream". A module is an object file here, and not a DLL. Each has a stream of its own with
its symbols and lines, so one look into the section contributions tells which of them an address needs.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from throwstack.pdb.msf import DBI_STREAM, NO_STREAM, MsfFile, Stream
from throwstack.pdb.sorted_keys import SortedKeys

X86 = 0x14C
_HEAD = struct.Struct("<iIIHHHHHHiiiiiIiiHHI")
_SIGNATURE = -1
_STRIPPED = 2
_MODULE = struct.Struct("<34xHIII16x")
_CONTRIBUTION_SIZES = {0xF12EBA2D: 28, 0xF13151E4: 32}
_CONTRIBUTION = struct.Struct("<HHIIIH")
_MAX_PART = 64 << 20
_MAX_MODULES = 1 << 16
_MAX_DEBUG_STREAMS = 64


class DebugStream(IntEnum):
    """Purposes of further streams. The value is the index in the DBI stream's list of their numbers."""

    FPO = 0
    OMAP_TO_SOURCE = 3
    OMAP_FROM_SOURCE = 4
    SECTIONS = 5
    FRAME_DATA = 9
    FORMER_SECTIONS = 10
    """The section headers from before the image was rearranged."""


@dataclass(frozen=True, slots=True)
class PdbModule:
    """An object file that was linked: its index, its name, its stream (or NO_STREAM), the parts of that in bytes.

    The stream has the symbols first, then lines in the old form (C11), then lines in the form of today (C13).
    """

    index: int
    name: str
    stream: int
    symbols_size: int
    c11_size: int
    c13_size: int


class Dbi:
    """The DBI stream of a PDB. What is not asked for is not read."""

    def __init__(self, msf: MsfFile) -> None:
        """Read the head of the DBI stream of `msf`. Raises `NotAPdb`."""
        self._msf = msf
        self._stream = msf.stream(DBI_STREAM)
        head = self._stream.read(0, _HEAD.size)
        if len(head) < _HEAD.size:
            message = "it has no DBI stream, so it is not the PDB of an image"
            raise msf.error(message)
        fields = _HEAD.unpack(head)
        signature, _, self.age, self.globals_stream, _, self.publics_stream, _, self.symbols_stream, _ = fields[:9]
        modules, contributions, section_map, sources, types_map, _, debug, edit = fields[9:17]
        flags, self.machine, _ = fields[17:]
        if signature != _SIGNATURE or min(modules, contributions, section_map, sources, types_map, debug, edit) < 0:
            message = "damaged (its DBI stream has an impossible head)"
            raise msf.error(message)
        self.is_stripped = bool(flags & _STRIPPED)
        """Only public symbols are complete: private ones, their types and lines were taken out."""
        self._known_modules: dict[int, PdbModule] = {}
        self._modules_range = _HEAD.size, modules
        self._contributions_range = _HEAD.size + modules, contributions
        start = _HEAD.size + modules + contributions + section_map + sources + types_map + edit
        numbers = self._stream.read(start, min(debug, _MAX_DEBUG_STREAMS * 2))
        self._debug_streams = struct.unpack(f"<{len(numbers) // 2}H", numbers[: len(numbers) // 2 * 2])

    def debug_stream(self, purpose: DebugStream) -> Stream:
        """Return the stream for `purpose`, which is empty if the PDB has none."""
        number = self._debug_streams[purpose] if purpose < len(self._debug_streams) else NO_STREAM
        return self._msf.stream(-1 if number == NO_STREAM else number)

    @property
    def module_count(self) -> int:
        """Return the number of modules."""
        return len(self._module_offsets)

    def module(self, index: int) -> PdbModule | None:
        """Return the module with the number `index`, or None if there is none."""
        found = self._known_modules.get(index)
        if found is not None or not 0 <= index < len(self._module_offsets):
            return found
        data, at = self._modules, self._module_offsets[index]
        stream, symbols, c11, c13 = _MODULE.unpack_from(data, at)
        name = data[at + _MODULE.size : data.find(b"\0", at + _MODULE.size)]
        found = PdbModule(index, name.decode("utf-8", "replace"), stream, symbols, c11, c13)
        self._known_modules[index] = found
        return found

    def module_named(self, name: str) -> PdbModule | None:
        """Return the module called `name`, in any case, or None."""
        index = self._module_indexes.get(name.lower())
        return None if index is None else self.module(index)

    @property
    def has_contributions(self) -> bool:
        """Say whether the PDB tells which module contributed which code."""
        return self._contribution_table[1] > 0

    def contribution(self, section: int, offset: int) -> int | None:
        """Return the number of the contribution that has the byte at `offset` of `section`, or None."""
        index = self._contribution_keys.last_at_or_before(section << 32 | offset)
        if index < 0:
            return None
        found, _, start, size, _, _ = self._contribution(index)
        return index if found == section and offset < start + size else None

    def contributor(self, section: int, offset: int) -> int | None:
        """Return the index of the module that contributed the byte at `offset` of `section`, or None."""
        index = self.contribution(section, offset)
        return None if index is None else self._contribution(index)[5]

    def last_contributor(self, section: int, offset: int) -> int | None:
        """Return the index of the module whose contribution to `section` starts last at or before `offset`, or None."""
        index = self._contribution_keys.last_at_or_before(section << 32 | offset)
        if index < 0:
            return None
        found, _, _, _, _, module = self._contribution(index)
        return module if found == section else None

    @cached_property
    def _modules(self) -> bytes:
        start, size = self._modules_range
        return self._stream.read(start, min(size, _MAX_PART))

    @cached_property
    def _module_offsets(self) -> array[int]:
        """Where the records of the modules start. They have different lengths, because of two names in each."""
        data, at = self._modules, 0
        offsets: array[int] = array("I")
        while at + _MODULE.size < len(data) and len(offsets) < _MAX_MODULES:
            first = data.find(b"\0", at + _MODULE.size)
            second = data.find(b"\0", first + 1)
            if first < 0 or second < 0:
                break
            offsets.append(at)
            at = (second + 4) & ~3
        return offsets

    @cached_property
    def _module_indexes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for index in range(self.module_count):
            module = self.module(index)
            if module is not None:
                found.setdefault(module.name.lower(), index)
        return found

    @cached_property
    def _contribution_table(self) -> tuple[int, int, int]:
        """Return offset, number and size of the records of section contributions."""
        start, size = self._contributions_range
        version = int.from_bytes(self._stream.read(start, 4), "little")
        record = _CONTRIBUTION_SIZES.get(version)
        size = min(size, self._stream.size - start)
        return (start + 4, max(0, size - 4) // record, record) if record else (0, 0, 0)

    @cached_property
    def _contribution_keys(self) -> SortedKeys:
        def key(index: int) -> int:
            section, _, offset, *_ = self._contribution(index)
            return section << 32 | offset

        return SortedKeys(self._contribution_table[1], key)

    def _contribution(self, index: int) -> tuple[int, int, int, int, int, int]:
        """Return section, filling, offset, size, characteristics and module of a contribution."""
        start, _, size = self._contribution_table
        data = self._stream.read(start + size * index, _CONTRIBUTION.size)
        return _CONTRIBUTION.unpack(data.ljust(_CONTRIBUTION.size, b"\0"))
