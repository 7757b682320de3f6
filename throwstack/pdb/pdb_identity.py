# SPDX-License-Identifier: Apache-2.0
"""Reads GUID and age of a PDB, and nothing else of it, to check that it belongs to an image.

Follows LLVM's description of the format (The PDB Info Stream, The PDB DBI Stream).

A PDB has two ages, and only one of them has to equal the age in the image. Each tool that rewrites the file (source
indexing, stripping) increases the age in the info stream, while the image keeps the age that it was linked with. The
age in the DBI stream stays as the linker wrote it, so this age is compared. A PDB without a DBI stream has only the age
in the info stream, which is compared instead.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from throwstack.images.image import PdbIdentity
from throwstack.pdb.msf import DBI_STREAM, MsfFile, NotAPdb

_INFO_STREAM = 1


@dataclass(frozen=True, slots=True)
class PdbFileIdentity:
    """GUID (32 upper-case hex digits) and age of a PDB, which the RSDS record of its image has, too."""

    guid: str
    age: int


def read_pdb_identity(path: Path) -> PdbFileIdentity:
    """Return the identity of the PDB at `path`. Raises `NotAPdb`, and `OSError` if the file cannot be read."""
    with path.open("rb") as file:
        try:
            return _read(file)
        except struct.error:
            message = "damaged (it has no identity)"
            raise NotAPdb(message) from None


def check_pdb(path: Path, wanted: PdbIdentity, max_size: int) -> str | None:
    """Return None if the file at `path` is the PDB `wanted` and not longer than `max_size`, else the reason why not."""
    try:
        size = path.stat().st_size
        if size > max_size:
            return f"{size >> 20} MB are more than the limit of {max_size >> 20} MB"
        found = read_pdb_identity(path)
    except NotAPdb as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if found.guid != wanted.guid:
        return f"GUID {found.guid}, the image wants {wanted.guid}"
    if found.age != wanted.age:
        return f"age {found.age}, the image wants {wanted.age} (GUID {wanted.guid})"
    return None


def _read(file: BinaryIO) -> PdbFileIdentity:
    msf = MsfFile(file)
    _, _, info_age, raw = struct.unpack_from("<III16s", msf.stream(_INFO_STREAM, 28))
    guid = "{:08X}{:04X}{:04X}".format(*struct.unpack_from("<IHH", raw)) + raw[8:].hex().upper()
    dbi = msf.stream(DBI_STREAM, 12)
    age = struct.unpack_from("<I", dbi, 8)[0] if len(dbi) == 12 else info_age
    return PdbFileIdentity(guid, age)
