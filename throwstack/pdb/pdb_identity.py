# SPDX-License-Identifier: Apache-2.0
"""Reads GUID and age of a PDB, and nothing else of it, to check that it belongs to an image.

Follows LLVM's description of the format (The PDB Info Stream, The PDB DBI Stream).

A PDB has two ages, and only one of them has to equal the age in the image. Each tool that rewrites the file (source
indexing, stripping) increases the age in the info stream, while the image keeps the age that it was linked with. The
age in the DBI stream stays as the linker wrote it, so this age is compared. A PDB without a DBI stream has only the age
in the info stream, which is compared instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from throwstack.images.image import PdbIdentity
from throwstack.pdb.info_stream import InfoStream, read_info
from throwstack.pdb.msf import DBI_STREAM, MsfFile, NotAPdb

_AGE = 8
"""The offset of the age in the DBI stream."""


@dataclass(frozen=True, slots=True)
class PdbFileIdentity:
    """GUID (32 upper-case hex digits) and age of a PDB, which the RSDS record of its image has, too."""

    guid: str
    age: int


def read_pdb_identity(path: Path) -> PdbFileIdentity:
    """Return the identity of the PDB at `path`. Raises `NotAPdb`, and `OSError` if the file cannot be read."""
    with MsfFile(path) as msf:
        return identity_of(msf, read_info(msf))


def identity_of(msf: MsfFile, info: InfoStream) -> PdbFileIdentity:
    """Return the identity of `msf`, whose info stream is `info`. Raises `NotAPdb`."""
    age = msf.stream(DBI_STREAM).read(_AGE, 4)
    return PdbFileIdentity(info.guid, int.from_bytes(age, "little") if len(age) == 4 else info.age)


def check_pdb(path: Path, wanted: PdbIdentity, max_size: int) -> str | None:
    """Return None if the file at `path` is the PDB `wanted` and not longer than `max_size`, else the reason why not."""
    try:
        size = path.stat().st_size
        if size > max_size:
            return f"{size >> 20} MB are more than the limit of {max_size >> 20} MB"
        found = read_pdb_identity(path)
    except NotAPdb as error:
        return error.reason
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if found.guid != wanted.guid:
        return f"GUID {found.guid}, the image wants {wanted.guid}"
    if found.age != wanted.age:
        return f"age {found.age}, the image wants {wanted.age} (GUID {wanted.guid})"
    return None
