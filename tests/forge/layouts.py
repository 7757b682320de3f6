# SPDX-License-Identifier: Apache-2.0
"""Structure layouts and symbols of a kernel, read from an ISF file (Volatility's JSON, schema 6.x).

`python -m tests.forge.layouts IN OUT` writes a copy of an ISF that keeps only the types that a forged dump needs
(`tests.forge.pruning`); the files in `tests/forge/layouts` were made that way.
"""

from __future__ import annotations

import json
import lzma
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forge.describe import Paging
from tests.forge.pruning import prune

CARRIED = Path(__file__).with_name("layouts")

BUILD_BY_GUID = {
    "3844DBB920174967BE7AA4A2C20430FA": 7601,
    "06A508F37B81478E855A3542E272C084": 9600,
    "03A098BC85D047028437D88E4C8BBC6B": 14393,
    "00F31FD82648C8ED1A4426DFFC56A424": 17763,
    "06564D3477822C7D97F04852CBD5AFD6": 19041,
    "0B0A89438BE7729EB33FD00A7D6FA816": 22000,
}
"""Kernels whose build cannot be told from their types."""

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Field:
    """Where a member is: byte offset and size of one element; for a bit field its first bit and its width."""

    offset: int
    size: int
    bit: int = 0
    width: int = 0
    count: int = 1


class Layout:
    """The types and symbols of one ISF."""

    def __init__(self, isf: dict[str, Any], source: Path | None = None) -> None:
        self.isf = isf
        self.source = source
        self.types: dict[str, Any] = isf["user_types"]
        self.symbols: dict[str, int] = {name: entry["address"] for name, entry in isf["symbols"].items()}
        self.pointer_size: int = isf["base_types"]["pointer"]["size"]
        self._fields: dict[tuple[str, str], Field | None] = {}

    @property
    def is_64bit(self) -> bool:
        """Say whether pointers have 8 bytes."""
        return self.pointer_size == 8

    @property
    def has_own_symbols(self) -> bool:
        """Say whether the kernel's own symbol addresses are known (a real PDB's ISF)."""
        return "PsActiveProcessHead" in self.symbols

    @property
    def pte_size(self) -> int:
        """Size of a PTE as the types have it."""
        return self.size("_MMPTE")

    def size(self, name: str) -> int:
        """Return the size of a type in bytes."""
        return int(self.types[name]["size"])

    def has(self, name: str, path: str = "") -> bool:
        """Say whether a type, or a member of it, exists."""
        if not path:
            return name in self.types
        return self._find(name, path) is not None

    def field(self, name: str, path: str) -> Field:
        """Return where the member `path` (`Tcb.State`) of a type is; KeyError if there is none."""
        found = self._find(name, path)
        if found is None:
            message = f"{name}.{path}"
            raise KeyError(message)
        return found

    def offset(self, name: str, path: str) -> int:
        """Return a member's offset in bytes."""
        return self.field(name, path).offset

    def _find(self, name: str, path: str) -> Field | None:
        key = (name, path)
        if key not in self._fields:
            self._fields[key] = self._look_up(name, path)
        return self._fields[key]

    def _look_up(self, name: str, path: str) -> Field | None:
        offset = 0
        kind: dict[str, Any] = {"kind": "struct", "name": name}
        for part in path.split("."):
            fields = self.types.get(kind.get("name", ""), {}).get("fields", {})
            if part not in fields:
                return None
            offset += fields[part]["offset"]
            kind = fields[part]["type"]
        if kind["kind"] == "bitfield":
            return Field(offset, self._size_of(kind["type"]), kind["bit_position"], kind["bit_length"])
        if kind["kind"] == "array":
            return Field(offset, self._size_of(kind["subtype"]), count=kind["count"])
        return Field(offset, self._size_of(kind))

    def _size_of(self, kind: dict[str, Any]) -> int:
        match kind["kind"]:
            case "pointer":
                return self.pointer_size
            case "array":
                return int(kind["count"]) * self._size_of(kind["subtype"])
            case "bitfield":
                return self._size_of(kind["type"])
            case "base" | "enum":
                table = "base_types" if kind["kind"] == "base" else "enums"
                return int(self.isf[table][kind["name"]]["size"])
        return 0 if kind["kind"] == "function" else self.size(kind["name"])

    def version(self, wanted: Version) -> Version:
        """Return the Windows version that the types belong to: the wanted one where they leave a choice."""
        major, minor, build = self._version()
        known = BUILD_BY_GUID.get(self.guid) if self.has_own_symbols else None
        if (major, minor) == wanted[:2] and known is None:
            return wanted
        return (major, minor, known or build)

    def _version(self) -> Version:
        if self.has("_EPROCESS", "VadRoot.Root"):
            # _RTL_AVL_TREE came with 8.1, the other two with 10.
            return (10, 0, 19041) if self.has("_EWOW64PROCESS") or self.has("_TEB", "HeapData") else (6, 3, 9600)
        if not self.has("_EPROCESS", "VadRoot.BalancedRoot"):
            return (5, 1, 2600)
        if self.has("_ETHREAD", "ThreadsProcess"):
            return (5, 2, 3790)
        return (6, 1, 7601) if self.has("_LDR_DATA_TABLE_ENTRY", "LoadTime") else (6, 0, 6002)

    @property
    def pdb(self) -> dict[str, Any]:
        """The ISF's own record of its PDB: database, GUID, age, machine_type."""
        return dict(self.isf["metadata"].get("windows", {}).get("pdb", {}))

    @property
    def guid(self) -> str:
        """The PDB's GUID, as 32 digits."""
        return str(self.pdb.get("GUID", ""))


def load(path: Path) -> Layout:
    """Read an ISF, plain or compressed with xz."""
    data = path.read_bytes()
    return Layout(json.loads(lzma.decompress(data) if path.suffix == ".xz" else data), path)


def carried(paging: Paging, version: Version) -> Path:
    """Return the carried layout that suits a machine best."""
    if paging.is_64bit:
        name = "win10_x64_19041"
    elif version < (6, 0, 0):
        name = "win2003_sp2_x86"
    else:
        name = "win10_x86_19041" if version >= (10, 0, 0) else "win7_sp1_x86"
    return CARRIED / f"{name}.json.xz"


def main(arguments: list[str]) -> int:
    """Prune an ISF: arguments are the input and the output file."""
    source, target = map(Path, arguments)
    text = json.dumps(prune(load(source).isf), sort_keys=True, separators=(",", ":")).encode()
    target.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME) if target.suffix == ".xz" else text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
