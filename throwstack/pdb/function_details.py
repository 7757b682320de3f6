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
_THIS = "this"
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
        scopes = [self._here(body, self._inlined(body, *one), one[1]) for one in reversed(inlined)]
        return FunctionAt(body.section, body.offset, function, (*scopes, self._here(body, function, whole)))

    def signature(self, records: bytes, name: str) -> str:
        """Return the signature of the function with these `records`, which is called `name`; "" if it has no type."""
        function = self._function(records)
        return "" if function is None else self._signatures.of(function, name)

    def parameters(self, function: FunctionSymbol) -> tuple[VariableSymbol, ...]:
        """Return the variables of a function that are its parameters, as far as that follows from its type."""
        placed = self._signatures.parameters(function, self._signatures.type_of(function))
        return tuple(variable for variable in placed if variable is not None)

    @staticmethod
    def _inlined(body: FunctionBody, inlinee: int, variables: _Variables) -> FunctionSymbol:
        scope = Scope(ScopeKind.INLINED, variables, ())
        return FunctionSymbol("", body.type_here(inlinee), has_id=True, body=0, scope=scope)

    def _here(self, body: FunctionBody, function: FunctionSymbol, variables: _Variables) -> _Variables:
        """Return the `variables` of `function` with the numbers that their types have in this PDB."""
        found = []
        for variable in variables:
            number = body.type_here(variable.type)
            one = variable if number == variable.type else replace(variable, type=number)
            found.append(self._adjusted(one, function) if one.name == _THIS else one)
        return tuple(found)

    def _adjusted(self, this: VariableSymbol, function: FunctionSymbol) -> VariableSymbol:
        found = self._signatures.type_of(function)
        beyond = None if found is None else found.this_adjust
        return replace(this, beyond=beyond) if beyond != this.beyond else this

    def _function(self, records: bytes) -> FunctionSymbol | None:
        key = records[:_MAX_BODY]
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = self._kept[key] = function_symbol(key)
        if len(self._kept) > _KEPT_FUNCTIONS:
            self._kept.popitem(last=False)
        return made


def _at_place(scope: Scope, section: int, offset: int) -> tuple[list[tuple[int, _Variables]], _Variables]:
    """Return the inlined functions at a place with their variables, outermost first, and those of the function.

    An inlined function is given by the number of its name.
    """
    distance = offset - (0 if scope.extent is None else scope.extent.begin)
    inlined: list[tuple[int, int, _Variables]] = []
    for depth, site in _sites(scope, 1):
        if line_at(site.annotations, distance) is not None:
            while inlined and inlined[-1][0] >= depth:
                inlined.pop()
            inlined.append((depth, site.inlinee, _in_scope(site, section, offset)))
    return [(inlinee, variables) for _, inlinee, variables in inlined], _in_scope(scope, section, offset)


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
