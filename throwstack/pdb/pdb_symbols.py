# SPDX-License-Identifier: Apache-2.0
"""Symbols from PDBs: functions, inlined functions, files and lines, signatures, frame data.

A PDB is found along the symbol path by the identity in the image's RSDS record. It stays open, and what an address
needs is read from it (`throwstack.pdb.pdb_file`). If a PDB cannot be used, there is one message, and the names of the
image come from another source, such as its exports.
"""

from __future__ import annotations

from collections.abc import Callable

from throwstack.core.text import escape
from throwstack.files.symbol_path import Say, SymbolPath
from throwstack.images.image import Image, PdbIdentity
from throwstack.names.frame_records import FrameData
from throwstack.pdb.msf import NotAPdb
from throwstack.pdb.pdb_file import PdbFile, PdbKind
from throwstack.pdb.pdb_identity import check_pdb, identity_of
from throwstack.pdb.pdb_table import PdbTable

_MAX_OPEN = 256
"""How many PDBs may be open before those that only may be of use are left alone. A process may open some 500 files."""


class PdbSymbols:
    """A `SymbolSource` and `FrameDataSource` that finds the PDBs of images along a symbol path."""

    def __init__(
        self,
        path: SymbolPath,
        *,
        say: Say,
        identify: Callable[[Image], PdbIdentity | None] | None = None,
        max_size: int = 2 << 30,
    ) -> None:
        """`path` is searched for PDBs. `say` is called with messages for the user.

        `identify` returns the identity of the PDB of an image whose RSDS record cannot be read. A PDB of more than
        `max_size` bytes is refused.
        """
        self._path = path
        self._directories = SymbolPath(path.elements, say=lambda _: None)  # says nothing of files that nobody asked for
        self._say = say
        self._identify = identify
        self._max_size = max_size
        self._tables: dict[PdbIdentity, PdbTable | None] = {}
        self._not_at_hand: set[PdbIdentity] = set()

    def __call__(self, image: Image) -> PdbTable | None:
        """Return the symbols of the PDB of `image`, or None if there is none that can be read."""
        identity = image.pdb
        if identity is None and self._identify is not None:
            identity = self._identify(image)
        if identity is None:
            return None
        if identity not in self._tables:
            self._tables[identity] = self._open(identity, self._path)
        return self._tables[identity]

    def at_hand(self, image: Image) -> PdbTable | None:
        """Return the symbols of the PDB of `image` if it is in a directory of the path, and nothing is said otherwise.

        No server is asked. The result is None, too, if a great many PDBs are open already.
        """
        identity = image.pdb
        if identity is None or identity in self._not_at_hand:
            return None
        if identity not in self._tables:
            if len(self._tables) >= _MAX_OPEN:
                return None
            table = self._open(identity, self._directories)
            if table is None:
                self._not_at_hand.add(identity)
                return None
            self._tables[identity] = table
        return self._tables[identity]

    def frame_data(self, image: Image, rva: int) -> FrameData | None:
        """Return the innermost frame data record of the image's PDB that covers `rva`, or None."""
        table = self(image)
        return None if table is None else table.frame_data(rva)

    def close(self) -> None:
        """Close all PDBs. Their tables know no more names from now on."""
        for table in self._tables.values():
            if table is not None:
                table.pdb.close()
        self._tables.clear()
        self._not_at_hand.clear()

    def _open(self, identity: PdbIdentity, along: SymbolPath) -> PdbTable | None:
        path = along.find(identity, lambda candidate: check_pdb(candidate, identity, self._max_size))
        if path is None:
            return None
        try:
            table = PdbTable(PdbFile(path), self._say)
            found = identity_of(table.pdb.msf, table.pdb.info)
        except NotAPdb as error:
            self._say(str(error))
            return None
        except OSError as error:
            self._say(f"{path}: cannot be read: {escape(error.strerror or str(error))}")
            return None
        if (found.guid, found.age) != (identity.guid, identity.age):
            table.pdb.close()
            self._say(f"{path}: replaced by another file while it was opened")
            return None
        if table.pdb.info.is_fastlink:
            self._say(f"{path}: {PdbKind.FASTLINK.value}")
        return table
