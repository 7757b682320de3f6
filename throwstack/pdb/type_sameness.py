# SPDX-License-Identifier: Apache-2.0
"""Compares two types of a PDB by what their bytes mean.

A name can have several definitions. Of C++ they mostly differ in the functions that a class has, which is nothing to a
value. But two files of C may each have a `struct item` of its own, and then nothing says which of them a record means
that only names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, zip_longest
from typing import Protocol, TypeVar

from throwstack.pdb.type_model import Array, BitField, Enumeration, Field, Modified, Pointer, Structure, Type

_T = TypeVar("_T")
_MAX_DEPTH = 8
_MAX_COMPARED = 1 << 14


class Named(Protocol):
    """What is needed of the types of a PDB."""

    def type(self, index: int) -> Type:
        """Return the type with a number."""

    def members(self, structure: Structure) -> Iterator[Field]:
        """Yield the members of a structure."""

    def enumerators(self, enumeration: Enumeration) -> Iterator[tuple[str, int]]:
        """Yield the names of an enumeration with their values."""


class Sameness:
    """Compares types for one answer. After 16,384 comparisons, what is left to compare counts as different."""

    def __init__(self, types: Named) -> None:
        """`types` are the types of the PDB."""
        self._types = types
        self._left = _MAX_COMPARED

    def is_same(self, one: Type, other: Type, depth: int = 0) -> bool:
        """Say whether two types have the same bytes with the same meanings. `depth` is how deep they are in others."""
        self._left -= 1
        if one == other or depth > _MAX_DEPTH or self._left < 0:
            return one == other
        if isinstance(one, Structure) and isinstance(other, Structure):
            return self._are_same_structures(one, other, depth + 1)
        if isinstance(one, Enumeration) and isinstance(other, Enumeration):
            return one.target == other.target and self._all(
                self._types.enumerators(one), self._types.enumerators(other), lambda name, same: name == same
            )
        if isinstance(one, Modified | Pointer | BitField) and isinstance(other, Modified | Pointer | BitField):
            is_alike = replace(one, target=other.target) == other
            return is_alike and self._are_same_numbers(one.target, other.target, depth + 1)
        if isinstance(one, Array) and isinstance(other, Array):
            return one.size == other.size and self._are_same_numbers(one.element, other.element, depth + 1)
        return False

    def _are_same_numbers(self, one: int, other: int, depth: int) -> bool:
        return one == other or self.is_same(self._types.type(one), self._types.type(other), depth)

    def _are_same_structures(self, one: Structure, other: Structure, depth: int) -> bool:
        if one.is_forward or other.is_forward:
            return (one.name, one.unique_name) == (other.name, other.unique_name)
        if (one.is_union, one.size) != (other.is_union, other.size):
            return False
        return self._all(
            self._types.members(one),
            self._types.members(other),
            lambda member, same: (
                (member.name, member.offset) == (same.name, same.offset)
                and self._are_same_numbers(member.type, same.type, depth)
            ),
        )

    def _all(self, some: Iterator[_T], others: Iterator[_T], are_same: Callable[[_T, _T], bool]) -> bool:
        pairs = zip_longest(some, others)
        for one, other in islice(pairs, max(self._left, 0)):
            self._left -= 1
            if one is None or other is None or not are_same(one, other):
                return False
        return next(pairs, None) is None
