# SPDX-License-Identifier: Apache-2.0
"""Finds the addresses of a function by its name, with the hash tables of global and of public symbols.

A global symbol S_PROCREF says in which module's symbols the function's record is. It has the readable name, `A::f`, and
a PDB without private symbols has none of them. A public symbol has the decorated name only. The names that a C function
may have there are few, so each is looked up. Those of a C++ function begin all in the same way, and are searched for.
A name without scopes is mostly one of C that the image does not have, so it is searched for in public PDBs only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from throwstack.pdb.codeview import string
from throwstack.pdb.dbi import Dbi
from throwstack.pdb.module_symbols import ModuleSymbols
from throwstack.pdb.msf import NO_STREAM, MsfFile
from throwstack.pdb.name_hash import NameHash
from throwstack.pdb.plain_names import decorated_beginnings, decorated_names, plain_name
from throwstack.pdb.publics import Publics, PublicSymbol

_REFERENCE = struct.Struct("<HHIIH")
_REFERENCES = frozenset({0x1125, 0x1127})
_MAX_NAME = 4096
_MAX_FOUND = 1 << 12

Place = tuple[int, int]
"""Section number and offset in it."""


class FunctionNames:
    """The functions of a PDB by name."""

    def __init__(
        self,
        msf: MsfFile,
        dbi: Dbi,
        publics: Publics,
        module_symbols: Callable[[int], ModuleSymbols | None],
        *,
        is_fastlink: bool,
        is_private: Callable[[], bool],
    ) -> None:
        """`module_symbols` gives the functions of a module by its index.

        `is_private` says whether the modules have the functions that are not public, too.
        """
        self._is_private = is_private
        self._symbols = msf.stream(-1 if dbi.symbols_stream == NO_STREAM else dbi.symbols_stream)
        globals_ = msf.stream(-1 if dbi.globals_stream == NO_STREAM else dbi.globals_stream)
        self._globals = NameHash(globals_, 0, is_fastlink=is_fastlink)
        self._publics = publics
        self._machine = dbi.machine
        self._module_symbols = module_symbols

    def places(self, name: str) -> set[Place]:
        """Return where the functions are that a debugger calls `name`. Raises `NotAPdb`."""
        found = set(self._procedures(name))
        if not found:
            found.update(
                (symbol.section, symbol.offset)
                for decorated in decorated_names(name, self._machine)
                for symbol in self._publics.named(decorated)
            )
        if not found:
            for symbol in self._of_c_plus_plus(name):
                if plain_name(symbol.name, self._machine) == name and len(found) < _MAX_FOUND:
                    found.add((symbol.section, symbol.offset))
        return found

    def _of_c_plus_plus(self, name: str) -> Iterator[PublicSymbol]:
        """Yield the public symbols that may be of a C++ function `name`."""
        if not name.isidentifier():
            return self._publics.beginning(decorated_beginnings(name))
        return iter(()) if self._is_private() else self._publics.outside_scopes(name)

    def _procedures(self, name: str) -> Iterator[Place]:
        for at in self._globals.offsets(name):
            data = self._symbols.read(at, _REFERENCE.size + _MAX_NAME)
            if len(data) < _REFERENCE.size:
                continue
            length, kind, _, position, module = _REFERENCE.unpack_from(data)
            if kind not in _REFERENCES or string(data[: length + 2], _REFERENCE.size)[0] != name:
                continue
            symbols = self._module_symbols(module - 1)
            found = None if symbols is None else symbols.read(position)
            if found is not None and found.name == name:
                yield found.section, found.offset
