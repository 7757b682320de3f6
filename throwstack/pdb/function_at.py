# SPDX-License-Identifier: Apache-2.0
"""What a PDB says of the function at an address: its symbol, and the variables in scope there."""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.pdb.variable_model import FunctionSymbol, Variable


@dataclass(frozen=True, slots=True)
class FunctionAt:
    """A function at the byte at `offset` of `section`.

    `scopes` has the variables of each function there: of those that were inlined, from the innermost outwards, and last
    those of the function itself.
    """

    section: int
    offset: int
    function: FunctionSymbol
    scopes: tuple[tuple[Variable, ...], ...]
