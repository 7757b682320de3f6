# SPDX-License-Identifier: Apache-2.0
"""The functions of a written PDB, as the readers of types and variables give them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.pdb_model import X86, Enumeration, Procedure, Structure
from tests.support.pdb_writer import Pdb
from throwstack.core.registers import Arch
from throwstack.pdb.codeview import records
from throwstack.pdb.dbi import Dbi
from throwstack.pdb.msf import NO_STREAM, MsfFile
from throwstack.pdb.signatures import Signatures
from throwstack.pdb.type_stream import TypeStream
from throwstack.pdb.type_text import TypeText
from throwstack.pdb.types import Types
from throwstack.pdb.variable_model import FunctionSymbol
from throwstack.pdb.variable_symbols import function_symbol

GUID = "0123456789ABCDEF00112233445566AA"
_PROCEDURES = (0x110F, 0x1110, 0x1146, 0x1147)


@dataclass
class Written:
    """A PDB that is open, with what reads its types and functions."""

    msf: MsfFile
    types: Types
    text: TypeText
    signatures: Signatures

    def functions(self) -> dict[str, FunctionSymbol]:
        """Return the functions by name."""
        found = {}
        for body in self.bodies():
            function = function_symbol(body)
            assert function is not None
            found[function.name] = function
        return found

    def bodies(self) -> list[bytes]:
        """Return the records of each function, from its own up to its S_END."""
        dbi = Dbi(self.msf)
        bodies = []
        for module in map(dbi.module, range(dbi.module_count)):
            if module is None or module.stream == NO_STREAM:
                continue
            data = self.msf.stream(module.stream).read(0, module.symbols_size)
            starts = [record.at for record in records(data, 4, len(data)) if record.kind in _PROCEDURES]
            bodies += [data[start : int.from_bytes(data[start + 8 : start + 12], "little")] for start in starts]
        return bodies


def written(
    folder: Path,
    *procedures: Procedure,
    machine: int = X86,
    types: dict[str, Structure | Enumeration] | None = None,
) -> Written:
    """Write a PDB with these functions and types into `folder`, and open it."""
    path = folder / "app.pdb"
    path.write_bytes(Pdb(GUID, machine=machine, procedures=list(procedures), types=types or {}).to_bytes())
    return opened(path, Arch.X86 if machine == X86 else Arch.X64)


def opened(path: Path, arch: Arch) -> Written:
    """Open the PDB `path` of code for `arch`."""
    msf = MsfFile(path)
    types = Types(TypeStream(msf.stream(2), msf.stream))
    ids = TypeStream(msf.stream(4), msf.stream)
    return Written(msf, types, TypeText(types, arch), Signatures(types, ids, arch))
