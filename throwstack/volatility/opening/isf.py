# SPDX-License-Identifier: Apache-2.0
"""Reads names of functions from ISF files, Volatility's symbol tables in JSON, in the directories given with `-s`.

The ISF file of a PDB is `windows/<name>/<GUID>-<age>.json` (or .json.xz, …), as Volatility's own tables are.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

from volatility3.framework.layers import resources
from volatility3.framework.symbols import intermed

from throwstack.images.image import Image, PdbIdentity
from throwstack.names.symbols import SymbolKind, SymbolTable

log = logging.getLogger(__name__)

_SAFE_NAME = re.compile(r"[A-Za-z0-9_.+\-]{1,128}")


class IsfSource:
    """A `SymbolSource` that reads each ISF file once."""

    def __init__(self) -> None:
        """Begin with no files read."""
        self._tables: dict[PdbIdentity, SymbolTable | None] = {}

    def __call__(self, image: Image) -> SymbolTable | None:
        """Return the symbols of `image`, or None if no ISF file has its PDB's name, GUID and age."""
        pdb = image.pdb
        if pdb is None:
            return None
        if pdb not in self._tables:
            self._tables[pdb] = _load(pdb)
        return self._tables[pdb]


def is_safe_name(name: str) -> bool:
    """Say whether the name of a PDB is a plain file name.

    The name comes from the dump. If it were a path or contained wildcards, it could reach any file.
    """
    return _SAFE_NAME.fullmatch(name) is not None and set(name) != {"."}


def isf_urls(pdb: PdbIdentity) -> Iterator[str]:
    """Yield the URLs of the ISF files of a PDB."""
    if is_safe_name(pdb.name):
        yield from intermed.IntermediateSymbolTable.file_symbol_url("windows", f"{pdb.name}/{pdb.guid}-{pdb.age}")


def _load(pdb: PdbIdentity) -> SymbolTable | None:
    for url in isf_urls(pdb):
        try:
            with resources.ResourceAccessor().open(url) as file:
                symbols = json.load(file)["symbols"]
            return SymbolTable(SymbolKind.ISF, _code_symbols(symbols))
        except Exception as error:  # noqa: BLE001 each compression has its own ways to say that a file is damaged
            log.warning("symbol file %s cannot be used: %s: %s", url, type(error).__name__, error)
    return None


def _code_symbols(symbols: dict[str, dict[str, Any]]) -> list[tuple[int, str]]:
    return sorted((int(symbol["address"]), name) for name, symbol in symbols.items() if symbol["address"])
