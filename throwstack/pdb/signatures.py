# SPDX-License-Identifier: Apache-2.0
"""Which variables of a function are its parameters, and its signature: `void __stdcall f(HRESULT hr, char * text)`.

The type of a function in a PDB has the types of its parameters, and no names. Names are those of variables. The two are
put together only where the records allow no other way. clang leaves out a parameter that an optimised function does not
use, so that the second variable may be the third parameter: of `f(int a, char * b, int c)` with the one variable `int
c`, either number may be meant, and then only the types are shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from throwstack.core.registers import Arch
from throwstack.pdb.codeview import BadRecord, unpack
from throwstack.pdb.type_model import FunctionType, Modified, Pointer, PointerForm
from throwstack.pdb.type_records import U32_U32
from throwstack.pdb.type_stream import TypeStream
from throwstack.pdb.type_text import TypeText, convention_text
from throwstack.pdb.types import Types
from throwstack.pdb.variable_model import FunctionSymbol, LocationKind, VariableSymbol

_FUNCTION_ID, _MEMBER_FUNCTION_ID = 0x1601, 0x1602
_MAX_CONST = 4


class Signatures:
    """Puts types and names of the parameters of functions of one PDB together."""

    def __init__(self, types: Types, ids: TypeStream | None, arch: Arch) -> None:
        """`types` are the PDB's types, `ids` is its id stream, if it has one, and `arch` is what its code runs on."""
        self._types = types
        self._ids = ids
        self._arch = arch
        self._text = TypeText(types, arch)

    def type_of(self, function: FunctionSymbol) -> FunctionType | None:
        """Return the type of a function, or None if the PDB does not have it."""
        index = function.type
        if function.has_id:
            index = 0 if self._ids is None else _type_of_id(self._ids, index)
        found = self._types.plain(index) if index else None
        return found if isinstance(found, FunctionType) else None

    def of(self, function: FunctionSymbol, name: str) -> str:
        """Return the signature of a function that is called `name`, "" if the PDB does not have its type."""
        found = self.type_of(function)
        if found is None:
            return ""
        named = self.parameters(function, found)
        names = tuple("" if variable is None else variable.name for variable in named)
        has_result = not found.is_constructor and not name.rpartition("::")[2].startswith("~")
        result = self._text.of(found.returns) if has_result else ""
        convention = convention_text(found.convention, self._arch)
        head = " ".join(word for word in (result, convention, name) if word)
        return f"{head}({self._text.parameters(found, names)})"

    def parameters(self, function: FunctionSymbol, found: FunctionType | None) -> tuple[VariableSymbol | None, ...]:
        """Return the variable of each parameter of a function of the type `found`, None where it is not certain."""
        if found is None:
            return ()
        wanted = found.parameters[:-1] if found.parameters[-1:] == (0,) else found.parameters
        variables = [variable for variable in function.scope.variables if variable.name != "this"]
        flagged = [variable for variable in variables if variable.is_parameter]
        if flagged or any(variable.is_parameter is False and variable.has_ranges for variable in variables):
            return self._placed(wanted, flagged)
        unsaid = [variable for variable in variables if variable.is_parameter is None]
        first = unsaid[: len(wanted)]
        if len(first) == len(wanted) and all(map(self._fits, wanted, first)):
            return tuple(first)
        return self._placed(wanted, [variable for variable in unsaid if _is_argument(variable)])

    def _placed(self, wanted: Sequence[int], variables: Sequence[VariableSymbol]) -> tuple[VariableSymbol | None, ...]:
        """Return `variables`, which are in order, at their places among the types `wanted`.

        A variable has its place if it is the same whether the variables are put as far to the left or to the right as
        their types allow.
        """
        nothing = (None,) * len(wanted)
        left = self._leftmost(list(wanted), list(variables))
        right = self._leftmost(list(wanted)[::-1], list(variables)[::-1])
        if left is None or right is None:
            return nothing
        places: list[VariableSymbol | None] = list(nothing)
        for variable, place, from_right in zip(variables, left, reversed(right), strict=True):
            if place == len(wanted) - 1 - from_right:
                places[place] = variable
        return tuple(places)

    def _leftmost(self, wanted: list[int], variables: list[VariableSymbol]) -> list[int] | None:
        """Return the first place at which each of `variables` fits after the one before, None if there is none."""
        places: list[int] = []
        place = 0
        for variable in variables:
            while place < len(wanted) and not self._fits(wanted[place], variable):
                place += 1
            if place == len(wanted):
                return None
            places.append(place)
            place += 1
        return places

    def _fits(self, wanted: int, variable: VariableSymbol) -> bool:
        """Say whether a variable can be the parameter of the type `wanted`, which has no `const` of its own.

        clang describes a structure that is passed by the address of a copy as a reference to it.
        """
        if self._same(variable.type, wanted):
            return True
        found = self._types.type(self._bare(variable.type))
        return isinstance(found, Pointer) and found.form is PointerForm.REFERENCE and self._same(found.target, wanted)

    def _same(self, one: int, other: int) -> bool:
        """Say whether two types are the same but for `const`. A type and a record that only names it are the same."""
        one, other = self._bare(one), self._bare(other)
        return one == other or self._text.of(one) == self._text.of(other)

    def _bare(self, index: int) -> int:
        for _ in range(_MAX_CONST):
            found = self._types.type(index)
            if not isinstance(found, Modified):
                break
            index = found.target
        return index


def _is_argument(variable: VariableSymbol) -> bool:
    """Say whether an x86 variable without a flag is in the arguments that the caller pushed."""
    return any(
        location.kind is LocationKind.BY_FRAME_POINTER and location.offset > 0 for location in variable.locations
    )


def _type_of_id(ids: TypeStream, index: int) -> int:
    """Return the number of the type of the function with the id `index`, or 0."""
    record = ids.record(index)
    if record is None or record[0] not in (_FUNCTION_ID, _MEMBER_FUNCTION_ID):
        return 0
    try:
        return unpack(U32_U32, record[1], 0)[1]
    except BadRecord:
        return 0
