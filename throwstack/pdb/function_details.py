# SPDX-License-Identifier: Apache-2.0
"""What a PDB says of the function at an address beyond its name: its signature, and the variables in scope there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from throwstack.pdb.inline_sites import line_at
from throwstack.pdb.signatures import Signatures
from throwstack.pdb.types import Types
from throwstack.pdb.variable_model import FunctionSymbol, Scope, ScopeKind, VariableSymbol
from throwstack.pdb.variable_symbols import function_symbol

_KEPT_FUNCTIONS = 8
_Variables = tuple[VariableSymbol, ...]
_MAX_BODY = 1 << 18
"""Most bytes of the records of a function that are kept; the variables in the rest are left out."""


@dataclass(frozen=True, slots=True)
class FunctionBody:
    """The records of the function at a place: number of a section, offset in it, and the records up to S_END.

    `type_here` returns the number in this PDB of a type that the records refer to. They may refer to one of another
    module, in code that is generated at link time: what was inlined from there has its variables.
    """

    section: int
    offset: int
    records: bytes
    type_here: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class FunctionAt:
    """A function at the byte at `offset` of `section`.

    `scopes` has the variables of each function there: of those that were inlined, from the innermost outwards, and last
    those of the function itself.
    """

    section: int
    offset: int
    function: FunctionSymbol
    scopes: tuple[tuple[VariableSymbol, ...], ...]


class FunctionDetails:
    """The functions of one PDB in detail. Methods raise `NotAPdb` if the PDB is damaged."""

    def __init__(
        self,
        types: Types,
        signatures: Signatures,
        body_at: Callable[[int], FunctionBody | None],
        rva_of: Callable[[int, int], int | None],
    ) -> None:
        """`types` are the PDB's types.

        `body_at` returns the records of the function at an RVA, or None. `rva_of` returns the RVA of the byte at an
        offset of a section, or None.
        """
        self.types = types
        self.rva_of = rva_of
        self._signatures = signatures
        self._body_at = body_at
        self._kept: OrderedDict[bytes, FunctionSymbol | None] = OrderedDict()

    def at(self, rva: int) -> FunctionAt | None:
        """Return the function at `rva` with the variables in scope there, or None."""
        body = self._body_at(rva)
        function = None if body is None else self._function(body.records)
        if body is None or function is None or function.scope.extent is None:
            return None
        inlined, whole = _at_place(function.scope, body.section, body.offset)
        scopes = (tuple(_with_type(one, body.type_here) for one in scope) for scope in (*reversed(inlined), whole))
        return FunctionAt(body.section, body.offset, function, tuple(scopes))

    def signature(self, records: bytes, name: str) -> str:
        """Return the signature of the function with these `records`, which is called `name`; "" if it has no type."""
        function = self._function(records)
        return "" if function is None else self._signatures.of(function, name)

    def parameters(self, function: FunctionSymbol) -> tuple[VariableSymbol, ...]:
        """Return the variables of a function that are its parameters, as far as that follows from its type."""
        placed = self._signatures.parameters(function, self._signatures.type_of(function))
        return tuple(variable for variable in placed if variable is not None)

    def _function(self, records: bytes) -> FunctionSymbol | None:
        key = records[:_MAX_BODY]
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = self._kept[key] = function_symbol(key)
        if len(self._kept) > _KEPT_FUNCTIONS:
            self._kept.popitem(last=False)
        return made


def _with_type(variable: VariableSymbol, type_here: Callable[[int], int]) -> VariableSymbol:
    """Return the variable with the number that its type has in this PDB."""
    number = type_here(variable.type)
    return variable if number == variable.type else replace(variable, type=number)


def _at_place(
    scope: Scope, section: int, offset: int
) -> tuple[list[tuple[VariableSymbol, ...]], tuple[VariableSymbol, ...]]:
    """Return the variables of the inlined functions at a place, outermost first, and those of the function."""
    distance = offset - (0 if scope.extent is None else scope.extent.begin)
    inlined: list[tuple[int, tuple[VariableSymbol, ...]]] = []
    for depth, site in _sites(scope, 1):
        if line_at(site.annotations, distance) is not None:
            while inlined and inlined[-1][0] >= depth:
                inlined.pop()
            inlined.append((depth, _in_scope(site, section, offset)))
    return [variables for _, variables in inlined], _in_scope(scope, section, offset)


def _sites(scope: Scope, depth: int) -> Iterator[tuple[int, Scope]]:
    """Yield all inlined functions in `scope`, in the order of their records. `depth` is that of those in it itself."""
    for inner in scope.scopes:
        is_inlined = inner.kind is ScopeKind.INLINED
        if is_inlined:
            yield depth, inner
        yield from _sites(inner, depth + 1 if is_inlined else depth)


def _in_scope(scope: Scope, section: int, offset: int) -> tuple[VariableSymbol, ...]:
    """Return the variables of a function and of those of its blocks that have the place."""
    found = list(scope.variables)
    for inner in scope.scopes:
        if inner.kind is ScopeKind.BLOCK and inner.extent is not None and inner.extent.covers(section, offset):
            found += _in_scope(inner, section, offset)
    return tuple(found)
