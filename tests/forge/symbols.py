# SPDX-License-Identifier: Apache-2.0
"""Writes symbol tables of forged modules as Volatility ISF files (schema 6.2.0) where its symbol path wants them."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pdb:
    """The identity that an image's RSDS record and its symbol file share: 32 hex digits and a count of writes."""

    name: str
    guid: str
    age: int = 1


def isf_document(pdb: Pdb, machine: int, symbols: Mapping[str, int]) -> dict[str, object]:
    """Return the ISF of one image: `symbols` gives RVAs by name. `machine` is IMAGE_FILE_HEADER.Machine."""
    pointer = 8 if machine == 0x8664 else 4
    return {
        "metadata": {
            "format": "6.2.0",
            "producer": {"datetime": "2003-03-24T00:00:00", "name": "throwstack-forge", "version": "1.0.0"},
            "windows": {
                "pdb": {"GUID": pdb.guid, "age": pdb.age, "database": pdb.name, "machine_type": machine},
            },
        },
        "base_types": {
            "pointer": {"endian": "little", "kind": "int", "signed": False, "size": pointer},
            "unsigned long": {"endian": "little", "kind": "int", "signed": False, "size": 4},
        },
        "enums": {},
        "user_types": {},
        "symbols": {name: {"address": rva} for name, rva in sorted(symbols.items(), key=lambda item: item[1])},
    }


def write_isf(directory: Path, pdb: Pdb, machine: int, symbols: Mapping[str, int]) -> Path:
    """Write `<directory>/windows/<pdb>/<GUID>-<age>.json.xz` and return its path."""
    path = directory / "windows" / pdb.name / f"{pdb.guid}-{pdb.age}.json.xz"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = json.dumps(isf_document(pdb, machine, symbols)).encode()
    path.write_bytes(lzma.compress(document, preset=1))
    return path
