# SPDX-License-Identifier: Apache-2.0
"""The variables of a function as a PDB describes them: names, types, and where their values are at which addresses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class CodeExtent:
    """Code between two offsets of a section, without `gaps`, which are pairs of such offsets. Ends are excluded."""

    section: int
    begin: int
    end: int
    gaps: tuple[tuple[int, int], ...] = ()

    def covers(self, section: int, offset: int) -> bool:
        """Say whether the byte at `offset` of `section` is in this code."""
        if section != self.section or not self.begin <= offset < self.end:
            return False
        return not any(begin <= offset < end for begin, end in self.gaps)


class LocationKind(Enum):
    """Where the value of a variable, or a part of it, can be."""

    REGISTER = "in a register"
    BY_REGISTER = "in memory, at a distance from a register"
    BY_FRAME = "in memory, at a distance from the base of the frame"
    BY_FRAME_POINTER = "in memory, at a distance from the frame pointer"
    """Of x86: from ebp if the function has a frame pointer, else from where the return address is (S_BPREL32)."""
    STATIC = "in a section of the image"
    THREAD = "in the thread's own storage"
    CONSTANT = "a constant"
    UNKNOWN = "said in a way that is not known"


@dataclass(frozen=True, slots=True)
class Location:
    """One place of a variable. `extent` is the code for which it holds; if it is None, that is the whole function.

    `register` is the number that CodeView gives a register. `offset` is the distance from the register, from the base
    of the frame, from the frame pointer, or from the start of `section`; of a constant it is the value. `part` is None
    if the whole variable is there, else the offset in the variable of the part that is.
    """

    kind: LocationKind
    register: int = 0
    offset: int = 0
    section: int = 0
    part: int | None = None
    extent: CodeExtent | None = None

    def holds_at(self, section: int, offset: int) -> bool:
        """Say whether the variable is at this place while the instruction at `offset` of `section` runs."""
        return self.extent is None or self.extent.covers(section, offset)


@dataclass(frozen=True, slots=True)
class VariableSymbol:
    """A parameter or local variable. `type` is the number of its type.

    `is_parameter` is None if the record does not say it: in code that is not optimised, Visual C++ lists parameters
    first and says no more. `has_ranges` says whether the record says at which addresses the locations hold.

    `beyond` is how much larger than the value is what is at its locations, of the `this` of a function that is called
    with a pointer into the object (`FunctionType.this_adjust`). It is None if that is not known.
    """

    name: str
    type: int
    is_parameter: bool | None = None
    locations: tuple[Location, ...] = ()
    is_optimised_out: bool = False
    has_ranges: bool = False
    beyond: int | None = 0


class ScopeKind(Enum):
    """What variables can belong to."""

    FUNCTION = "function"
    BLOCK = "block"
    INLINED = "inlined function"


@dataclass(frozen=True, slots=True)
class Scope:
    """A function, a block in it, or a function that was inlined into it, with its variables and the scopes in it.

    `extent` is the code of a function or block. An inlined function has `inlinee`, the number of its name, and the
    `annotations` from which its code follows.
    """

    kind: ScopeKind
    variables: tuple[VariableSymbol, ...]
    scopes: tuple[Scope, ...]
    extent: CodeExtent | None = None
    inlinee: int = 0
    annotations: bytes = b""


@dataclass(frozen=True, slots=True)
class FunctionSymbol:
    """A function with its variables.

    `type` is the number of its type, in the id stream if `has_id` is True. `body` is the offset in its section from
    which its prologue is over. `has_frame_pointer` says whether ebp is the frame pointer of an x86 function, and
    `frame_flags` are the flags of S_FRAMEPROC. `has_ranges` says whether a variable of the function has places that
    hold for a range of code, and `has_registers` whether one of those is in a register, or has a part of a variable.
    `has_optimised_details` says whether the record says that places are given as for optimised code. `has_frame` is
    False only if the record says that the function has neither locals nor saved registers on the stack.
    """

    name: str
    type: int
    has_id: bool
    body: int
    scope: Scope
    frame_flags: int = 0
    has_frame_pointer: bool = False
    has_ranges: bool = False
    has_optimised_details: bool = False
    has_frame: bool = True
    has_registers: bool = False

    @property
    def is_optimised(self) -> bool:
        """Say whether the compiler may have optimised the function: for speed, or for whatever else.

        For speed, S_FRAMEPROC says it. Else nothing does: of a function that is made small, the record says only that
        there are details of optimised code. clang says that of every function.
        """
        return bool(self.frame_flags & 0x100000) or self.has_optimised_details

    @property
    def has_handlers(self) -> bool:
        """Say whether the function handles exceptions, of C++ or of the system."""
        return bool(self.frame_flags & 0x50)

    @property
    def keeps_places(self) -> bool:
        """Say whether each variable with ranges is at one place on the stack for good: nothing was optimised."""
        return not (self.frame_flags & 0x100000 or self.has_registers)

    def base(self, *, of_parameter: bool) -> int:
        """Return which register the base of the frame is in for variables or parameters: 0 to 3, see S_FRAMEPROC."""
        return self.frame_flags >> (16 if of_parameter else 14) & 3
