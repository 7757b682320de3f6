# SPDX-License-Identifier: Apache-2.0
"""The types that a PDB describes, as values. A type refers to others by their numbers (`throwstack.pdb.types.Types`).

The names of kinds are those of `cvinfo.h` of Microsoft's microsoft-pdb.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BasicKind(Enum):
    """What the bytes of a basic type mean."""

    NOTHING = "nothing"
    """`void`, and the mark of a variable number of arguments."""
    SIGNED = "signed"
    UNSIGNED = "unsigned"
    CHARACTER = "character"
    """A character of text; its size is 1, 2 or 4 bytes."""
    BOOLEAN = "boolean"
    FLOATING = "floating"
    HRESULT = "hresult"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Basic:
    """A type that the language has. `size` is in bytes, 0 for `void` and for types of no known size."""

    name: str
    kind: BasicKind
    size: int


class PointerForm(Enum):
    """The kinds of pointers, by their numbers in a PDB; the value is how the type is written."""

    POINTER = "*"
    REFERENCE = "&"
    DATA_MEMBER = "::*"
    MEMBER_FUNCTION = "::*()"
    RVALUE_REFERENCE = "&&"


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer or reference to the type `target`. `owner` is the class of a pointer to a member, or else 0."""

    target: int
    size: int
    form: PointerForm = PointerForm.POINTER
    is_const: bool = False
    is_volatile: bool = False
    owner: int = 0

    @property
    def is_to_member(self) -> bool:
        """Say whether this is no address but the place of a member in a class."""
        return self.form in (PointerForm.DATA_MEMBER, PointerForm.MEMBER_FUNCTION)


@dataclass(frozen=True, slots=True)
class Modified:
    """The type `target` with `const` or `volatile`."""

    target: int
    is_const: bool
    is_volatile: bool


@dataclass(frozen=True, slots=True)
class Array:
    """An array of elements of the type `element`. `size` is in bytes."""

    element: int
    size: int


@dataclass(frozen=True, slots=True)
class BitField:
    """`length` bits of an integer of the type `target`, from bit `position` on."""

    target: int
    length: int
    position: int


@dataclass(frozen=True, slots=True)
class Enumeration:
    """An enumeration whose values are of the type `target`; `fields` is the number of its list of names.

    `is_forward` and `is_ambiguous` are as in `Structure`.
    """

    name: str
    target: int
    fields: int
    is_forward: bool = False
    unique_name: str = ""
    is_ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class Structure:
    """A structure, class or union. `size` is in bytes; `fields` is the number of its list of members.

    If `is_forward` is True, the record only names it, and size and members are in another record. `is_ambiguous` says
    that several other records have that name and different members.
    """

    keyword: str
    name: str
    size: int
    fields: int
    is_forward: bool = False
    unique_name: str = ""
    is_ambiguous: bool = False

    @property
    def is_union(self) -> bool:
        """Say whether all members begin at offset 0."""
        return self.keyword == "union"


@dataclass(frozen=True, slots=True)
class FunctionType:
    """The type of a function. `parameters` are type numbers; the last is 0 if more arguments may follow.

    `owner` is the class of a member function, or else 0. `has_this` says whether it takes a `this`. `is_constructor`
    says whether it is a constructor, for which a PDB gives the return type `void`.

    The `this` that a function is called with points `this_adjust` bytes into the object. A function of a second base
    class, say at offset 16, is called with a pointer to that; so is the function of a derived class that overrides it.
    """

    returns: int
    convention: int
    parameters: tuple[int, ...]
    owner: int = 0
    has_this: bool = False
    is_constructor: bool = False
    this_adjust: int = 0


@dataclass(frozen=True, slots=True)
class UnknownType:
    """A type whose record is absent, damaged, or of a kind that is not described here."""

    kind: int = 0


Type = Basic | Pointer | Modified | Array | BitField | Enumeration | Structure | FunctionType | UnknownType


@dataclass(frozen=True, slots=True)
class Field:
    """A data member at `offset` bytes in a structure. A base class is a member without a name."""

    name: str
    type: int
    offset: int

    @property
    def is_base(self) -> bool:
        """Say whether this is a base class."""
        return not self.name
