# SPDX-License-Identifier: Apache-2.0
"""The report on a module of a stack, `ModuleReport`: what WinDbg's `lm v` says, and what names its functions."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import Enum

from throwstack.report.values import Hexadecimal


class NamesFrom(Enum):
    """Where the names of a module's functions come from. The value is how a report says it."""

    PRIVATE_PDB = "private PDB"
    """A PDB that has what its compiler and linker write: functions, sources, types."""
    PUBLIC_PDB = "public PDB"
    """A PDB that lacks something of that, as those do that Microsoft gives away."""
    ISF = "ISF table"
    """Volatility's symbols, of the kernel alone."""
    EXPORT = "exports"
    """The export directory: a name may be that of the nearest exported function."""
    NONE = "nothing"
    """Nothing: frames of the module have offsets only."""


@dataclass(frozen=True, slots=True)
class PdbReport:
    """The PDB of a module, as the module names it: file name, GUID (32 hexadecimal digits), and age."""

    name: str
    guid: str = ""
    age: int | None = None


@dataclass(frozen=True, slots=True)
class ModuleReport:
    """A module (a DLL, an EXE, a driver) with frames on a stack that a report shows. Every string is escaped.

    `name` is what call sites have before the `!`. `version` is the file version in the module's resources. `timestamp`
    is the number in the headers; `built` is the same as a time, absent where it can be no time: a reproducible build
    has a hash there. `is_kernel` is true for a module of the kernel.
    """

    name: str
    base: Hexadecimal
    size: int
    symbols: NamesFrom
    path: str = ""
    version: str = ""
    timestamp: Hexadecimal | None = None
    built: datetime.datetime | None = None
    checksum: Hexadecimal | None = None
    pdb: PdbReport | None = None
    is_kernel: bool = False
