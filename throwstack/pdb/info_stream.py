# SPDX-License-Identifier: Apache-2.0
"""Reads the info stream of a PDB: its identity, the numbers of its named streams, the features it was written with.

Follows LLVM's "The PDB Info Stream". After the 28 bytes of identity come the names, then a hash table from the offset
of a name to the number of a stream, then words that each state a feature.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import islice

from throwstack.pdb.msf import MsfFile

_INFO_STREAM = 1
_MAX_SIZE = 1 << 20
_MAX_STREAMS, _MAX_NAME = 4096, 256
"""Most named streams, and most bytes of a name. A linker names ten; with source files in the PDB each has one."""
_HEAD = struct.Struct("<III16s")
_VC110, _VC140, _MINIMAL = 20091201, 20140508, 0x494E494D


@dataclass(frozen=True, slots=True)
class InfoStream:
    """What the info stream says. `guid` is 32 upper-case hex digits. `age` counts every rewriting of the file."""

    guid: str
    age: int
    named_streams: dict[str, int] = field(default_factory=dict)
    """Numbers of streams by name, such as `/names`."""
    features: frozenset[int] = frozenset()

    @property
    def has_ids(self) -> bool:
        """Say whether stream 4 is the IPI stream. A PDB of Visual C++ 2008 and before may have another stream there."""
        return bool({_VC110, _VC140} & self.features)

    @property
    def is_fastlink(self) -> bool:
        """Say whether the PDB was linked with /DEBUG:FASTLINK.

        Such a PDB has public symbols. Private symbols and lines are in the object files on the machine that linked it.
        """
        return _MINIMAL in self.features


def read_info(msf: MsfFile) -> InfoStream:
    """Return what the info stream of `msf` says. Raises `NotAPdb`."""
    data = msf.stream(_INFO_STREAM).read(0, _MAX_SIZE)
    if len(data) < _HEAD.size:
        message = "damaged (it has no identity)"
        raise msf.error(message)
    _, _, age, raw = _HEAD.unpack_from(data)
    guid = "{:08X}{:04X}{:04X}".format(*struct.unpack_from("<IHH", raw)) + raw[8:].hex().upper()
    try:
        named, at = _named_streams(data, _HEAD.size)
    except struct.error:  # the names are useful, the identity is needed
        return InfoStream(guid, age)
    words = data[at : at + (len(data) - at) // 4 * 4]
    return InfoStream(guid, age, named, frozenset(struct.unpack(f"<{len(words) // 4}I", words)))


def _named_streams(data: bytes, at: int) -> tuple[dict[str, int], int]:
    """Return the numbers of streams by name, and the offset after the table. Raises struct.error if it is damaged."""
    (size,) = struct.unpack_from("<I", data, at)
    names = data[at + 4 : at + 4 + size]
    at += 4 + size
    count, _ = struct.unpack_from("<II", data, at)
    at += 8
    for _ in range(2):  # two bit vectors: which entries are there, which were deleted
        (words,) = struct.unpack_from("<I", data, at)
        at += 4 + 4 * words
    if not 0 <= 8 * count <= len(data) - at:
        message = "more entries than bytes"
        raise struct.error(message)
    named = {}
    for offset, number in islice(struct.iter_unpack("<II", data[at : at + 8 * count]), _MAX_STREAMS):
        name = names[offset : offset + _MAX_NAME].split(b"\0", 1)[0]
        named[name.decode("utf-8", "replace")] = number
    return named, at + 8 * count
