# SPDX-License-Identifier: Apache-2.0
"""The symbol table of an image that comes from its PDB: names as a debugger shows them, lines, signatures, frames."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from throwstack.core.registers import Arch
from throwstack.files.symbol_path import Say
from throwstack.names.demangle import display_name
from throwstack.names.frame_records import FrameData
from throwstack.names.located_function import LocatedFunction
from throwstack.names.symbols import SymbolKind, SymbolTable
from throwstack.pdb.dbi import X86, DebugStream
from throwstack.pdb.function_details import FunctionBody, FunctionDetails
from throwstack.pdb.msf import NotAPdb
from throwstack.pdb.pdb_file import FoundFunction, PdbFile, PdbKind
from throwstack.pdb.pdb_frames import PdbFrames
from throwstack.pdb.plain_names import plain_name
from throwstack.pdb.remembered import Remembered
from throwstack.pdb.signatures import Signatures
from throwstack.pdb.time_limit import ValuesGivenUp
from throwstack.pdb.variable_model import FunctionSymbol, Scope, ScopeKind

_DRIVE_INSIDE = re.compile(r"^.*[\\/](?=[A-Za-z]:[\\/])")
r"""A working directory in front of a Windows path, which is cut off.

On Linux, clang takes a Windows path for a relative one and puts its working directory in front of it:
`/home/me/build/d:\src\app.cpp`.
"""
_MAX_LOCATED, _MAX_NAMED = 24 << 20, 1 << 20
"""How many bytes of rows, and of addresses of names, are kept."""
_ROW_BYTES = 400
_PUBLIC = "the PDB at hand has public symbols only: no source lines, no types, no variables"
_FASTLINK = (
    "the PDB at hand was linked with /DEBUG:FASTLINK: its source lines, types and variables are in the object files of "
    "the machine that linked it, where mspdbcmf.exe makes a full PDB of it"
)

Answer = TypeVar("Answer")


class PdbTable(SymbolTable):
    """The symbols of one PDB. Where the PDB is damaged it has none, and says so once."""

    __slots__ = (
        "_extents",
        "_frames",
        "_is_damaged",
        "_is_given_up",
        "_located",
        "_named",
        "_say",
        "_signatures",
        "details",
        "pdb",
    )

    def __init__(self, pdb: PdbFile, say: Say) -> None:
        """`pdb` is open as long as the table is used. `say` is called with a message if it is damaged.

        Raises `NotAPdb` if already the heads of its streams cannot be read.
        """
        super().__init__(SymbolKind.PDB, ())
        self.pdb = pdb
        self._say = say
        self._is_damaged = False
        self._is_given_up = False
        frames, fpo = (pdb.dbi.debug_stream(purpose) for purpose in (DebugStream.FRAME_DATA, DebugStream.FPO))
        self._frames = PdbFrames(frames, fpo, pdb.names.at, pdb.omap)
        self._signatures = Signatures(pdb.types, pdb.ids, Arch.X86 if pdb.dbi.machine == X86 else Arch.X64)
        self.details = FunctionDetails(pdb.types, self._signatures, self._body_at, pdb.rva_at)
        """The functions with their variables."""
        self._named = Remembered[str, list[int]](_MAX_NAMED, lambda found: 40 * len(found))
        self._extents = Remembered[tuple[str, int], list[tuple[int, int]]](_MAX_NAMED, len)
        self._located = Remembered[int, tuple[LocatedFunction, ...]](_MAX_LOCATED, _size_of)

    def __len__(self) -> int:
        """Return the number of public symbols, or 1 if there are none but the modules have functions."""
        return self._ask(lambda: len(self.pdb.publics) or int(self.pdb.has_functions), 0)

    @property
    def missing(self) -> str:
        """Return what the PDB lacks that a full PDB of the image has, in words; "" if it is a full one."""
        if self.pdb.info.is_fastlink:
            return _FASTLINK
        is_full = self._ask(lambda: self.pdb.kind is PdbKind.PRIVATE, True)
        return "" if is_full else _PUBLIC

    def nearest(self, rva: int) -> tuple[str, int] | None:
        """Return name and RVA of the function that starts at or before `rva`, or None.

        The result is also None if `rva` is in a piece of a function that was moved away from the function's start.
        """
        found = self._ask(lambda: self.pdb.nearest(rva), None)
        return None if found is None or found.rva is None else (self._shown(found), found.rva)

    def next_after(self, rva: int) -> int | None:
        """Return None: the functions of a PDB are found by address, and not listed."""

    def rva_of(self, name: str) -> int | None:
        """Return the RVA of the function called `name`, or None. If there are several, the first is returned."""
        return next(iter(self.rvas_of(name)), None)

    def extent_of(self, name: str, longest: int) -> tuple[int, int] | None:
        """Return RVA and size, at most `longest`, of the function called `name`; None if there is none.

        It ends where the next function begins.
        """
        found = self._extents.get((name, longest), lambda _: self._extent_of(name, longest))
        return found[0] if found else None

    def _extent_of(self, name: str, longest: int) -> list[tuple[int, int]]:
        start = self.rva_of(name)
        if start is None:
            return []
        inside, outside = 0, longest
        while outside - inside > 1:
            middle = (inside + outside) // 2
            found = self.nearest(start + middle)
            inside, outside = (middle, outside) if found is None or found[1] <= start else (inside, middle)
        return [(start, outside)]

    def rvas_of(self, name: str) -> list[int]:
        """Return the RVAs of all functions called `name`, in order."""
        return self._named.get(name, lambda name: self._ask(lambda: self.pdb.rvas_of(name), []))

    def locate(self, rva: int) -> tuple[LocatedFunction, ...]:
        """Return the functions at `rva`. Inlined ones come first, from the innermost outwards.

        The last is the function into which they were inlined.
        """
        return self._located.get(rva, lambda rva: self._ask(lambda: self._locate(rva), ()))

    def frame_data(self, rva: int) -> FrameData | None:
        """Return the innermost frame data record that covers `rva`, or None."""
        return self._ask(lambda: self._frames.find(rva), None)

    def frame_description(self, rva: int) -> FrameData | None:
        """Return the record that `kv` shows for the function at `rva`, or None."""
        return self._ask(lambda: self._frames.described(rva), None)

    def damaged(self, error: NotAPdb) -> None:
        """Say that the PDB is damaged, if that was not said yet."""
        if not self._is_damaged:
            self._is_damaged = True
            self._say(str(error))

    def values_given_up(self, error: ValuesGivenUp) -> None:
        """Say that frames lack the values of their variables, if that was not said yet."""
        if not self._is_given_up:
            self._is_given_up = True
            self._say(f"{self.pdb.msf.path}: {error}")

    def _ask(self, question: Callable[[], Answer], otherwise: Answer) -> Answer:
        """Return the answer to a question to the PDB; `otherwise` if it is damaged or took too much time already."""
        try:
            with self.pdb.msf.time:
                return question()
        except NotAPdb as error:
            self.damaged(error)
            return otherwise

    def _locate(self, rva: int) -> tuple[LocatedFunction, ...]:
        found = self.pdb.functions_at(rva)
        return tuple(self._located_function(one, rva, position, len(found)) for position, one in enumerate(found))

    def _shown(self, found: FoundFunction) -> str:
        shown = plain_name(found.name, self.pdb.dbi.machine) if found.is_public else display_name(found.name)
        return shown or found.name or "<unnamed>"

    def _located_function(self, found: FoundFunction, rva: int, position: int, count: int) -> LocatedFunction:
        name = self._shown(found)
        file = _DRIVE_INSIDE.sub("", found.file)
        source = f"{file} @ {found.line}" if file and found.line else ""
        return LocatedFunction(
            name, found.rva, source, found.name, found.is_inside, _Facts(self, found, name, rva, position, count)
        )

    def signature_of(self, facts: _Facts) -> str:
        """Return the signature of a function; "" if the PDB does not have its type."""
        return self._ask(lambda: self._signature(facts), "")

    def others_of(self, found: FoundFunction, name: str) -> tuple[str, ...]:
        """Return the other functions with the code of the one that is called `name`."""
        return self._ask(lambda: self._others(found, name), ())

    def _others(self, found: FoundFunction, name: str) -> tuple[str, ...]:
        plain = (plain_name(other, self.pdb.dbi.machine) for other in self.pdb.folded_with(found))
        return tuple(other for other in dict.fromkeys(plain) if other != name)

    def _signature(self, facts: _Facts) -> str:
        found = facts.found
        if found.record is not None:
            return self.details.signature(self.pdb.symbols_of(found.record), facts.name)
        if not found.type:
            return ""
        at = self.details.at(facts.rva)
        variables = at.scopes[facts.position] if at is not None and len(at.scopes) == facts.count else ()
        scope = Scope(ScopeKind.INLINED, variables, ())
        return self._signatures.of(
            FunctionSymbol(facts.name, found.type, has_id=False, body=0, scope=scope), facts.name
        )

    def _body_at(self, rva: int) -> FunctionBody | None:
        return self._ask(lambda: self._body(rva), None)

    def _body(self, rva: int) -> FunctionBody | None:
        record = self.pdb.function_record(rva)
        if record is None:
            return None
        type_here = partial(self.pdb.modules.number_here, record.module)
        return FunctionBody(record.section, record.offset, self.pdb.symbols_of(record), type_here)


def _size_of(rows: tuple[LocatedFunction, ...]) -> int:
    return sum(_ROW_BYTES + len(row.symbol) + len(row.source) + len(row.raw) for row in rows)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is read of a function when it is asked for. It is at `position` of the `count` functions at `rva`."""

    table: PdbTable
    found: FoundFunction
    name: str
    rva: int
    position: int
    count: int

    def signature(self) -> str:
        return self.table.signature_of(self)

    def others(self) -> tuple[str, ...]:
        return self.table.others_of(self.found, self.name)
