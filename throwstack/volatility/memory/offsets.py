# SPDX-License-Identifier: Apache-2.0
"""Declared offsets: a reader declares the members of Windows' structures that it needs. They are looked up once.

A reader declares what it needs in a frozen dataclass, with a field for each member. Names of members change between
Windows versions, so a field can have several paths, and the first one that the symbols have is taken:

    @dataclass(frozen=True, slots=True)
    class _Offsets:
        teb: int = offset("_ETHREAD.Tcb.Teb")
        left: int = offset("_MMVAD_SHORT.VadNode.Left", "_MMVAD_SHORT.LeftChild")
        wait_time: int | None = offset("_ETHREAD.Tcb.WaitTime", optional=True)

    offsets = take(_Offsets, layout)

A member that the symbols lack is None if it is optional. All others that they lack are named in one `MissingMembers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from throwstack.core.errors import ThrowstackError
from throwstack.volatility.memory.layout import Layout

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_KEY = "declared"


class MissingMembers(ThrowstackError, LookupError):
    """The error that the symbols lack members or types that a reader requires."""

    def __init__(self, names: Sequence[str]) -> None:
        """Make the error for the missing members `names`; alternatives, of which one would do, are joined by `or`."""
        super().__init__(f"the symbol table has no {', '.join(names)}")
        self.names = tuple(names)


@dataclass(frozen=True, slots=True)
class _Declared:
    paths: tuple[str, ...]
    look_up: Callable[[Layout, str], Any]
    is_optional: bool

    def with_suffix(self, suffix: str) -> tuple[str, ...]:
        """Return the paths, each with `suffix` after the name of the type."""
        return tuple(f"{name}{suffix}{dot}{member}" for name, dot, member in (p.partition(".") for p in self.paths))


def offset(*paths: str, optional: bool = False) -> Any:  # noqa: ANN401 a dataclass's field is whatever it is annotated with
    """Declare an `int`: the offset of a member in bytes, `_ETHREAD.Tcb.Teb`."""
    return _field(paths, lambda layout, path: layout.find(path), optional=optional)


def member(*paths: str, optional: bool = False) -> Any:  # noqa: ANN401 see `offset`
    """Declare a `Member`: a number that is read with the size that the symbols give for it."""
    return _field(paths, lambda layout, path: layout.member(path), optional=optional)


def bits(*paths: str, optional: bool = False) -> Any:  # noqa: ANN401 see `offset`
    """Declare a `tuple[int, Bits]`: the offset of the word that holds a bit field, and the field's bits in it."""
    return _field(paths, lambda layout, path: layout.bits(path), optional=optional)


def size(type_name: str, *, optional: bool = False) -> Any:  # noqa: ANN401 see `offset`
    """Declare an `int`: the size of a type in bytes."""
    return _field((type_name,), lambda layout, name: layout.size(name), optional=optional)


def _field(paths: tuple[str, ...], look_up: Callable[[Layout, str], Any], *, optional: bool) -> object:
    return field(metadata={_KEY: _Declared(paths, look_up, optional)})


_T = TypeVar("_T", bound="DataclassInstance")


def take(declaration: type[_T], layout: Layout, suffix: str = "") -> _T:
    """Return an instance of `declaration` with the offsets from `layout`; raises MissingMembers.

    `suffix` is put after the name of each type ("32" for the structures of WoW64).
    """
    return declaration(**look_up(declaration, layout, suffix))


def look_up(declaration: type[DataclassInstance], layout: Layout, suffix: str = "") -> dict[str, Any]:
    """Return the value that `layout` has for each field of a declaration, by the field's name; raises MissingMembers.

    `suffix` is put after the name of each type.
    """
    found: dict[str, Any] = {}
    missing: list[str] = []
    for one in fields(declaration):
        declared: _Declared = one.metadata[_KEY]
        paths = declared.with_suffix(suffix)
        values = (declared.look_up(layout, path) for path in paths)
        found[one.name] = value = next((value for value in values if value is not None), None)
        if value is None and not declared.is_optional:
            missing.append(" or ".join(paths))
    if missing:
        raise MissingMembers(missing)
    return found
