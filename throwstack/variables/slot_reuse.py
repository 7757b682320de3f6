# SPDX-License-Identifier: Apache-2.0
"""Finds out from the code whether a variable's place on the stack was given to something else.

A variable that was in a register is stored on the stack when the register is needed. When nothing reads it any more,
the compiler may store another value there. clang 19 for x86 does not always say so: of

    f+0x09: mov byte ptr [ebp-10h], dl        ; the parameter `flag`
    ...
    f+0xb9: mov dword ptr [ebp-10h], ecx      ; something else

the PDB says that `flag` is at [ebp-10h] from f+0x0c up to the end. A function that calls its last one by a jump stores
the arguments of that over its own, and the PDB says nothing of it. So the code for which a place is said to hold is
looked through. A store to it that may have been executed means that nothing is certain, unless it is the one that put
the variable there, right before the code or at its begin. It may be a new value of the same variable, which is then not
shown although it could be.

Some variables may be stored to at will: all those of a function that was not optimised, and a local variable that has
one place on the stack and no other (its address was taken). For x64, clang follows what is stored at each place, and
not only variables, as it does for x86. So there a place that no store has made is believed, if it is no argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import capstone

from throwstack.core.registers import Arch
from throwstack.variables.stack_depth import StackDepth

MOST_CODE = 1 << 16
"""How many bytes of a function are looked through."""
_AT_REGISTER = re.compile(r"(\w+) ptr \[(\w+)(?: ([+-]) (0x[0-9a-f]+|\d+))?\]")
"""The first operand, if it is in memory at a distance from a register alone."""
_WIDTHS = {"byte": 1, "word": 2, "dword": 4, "qword": 8, "xmmword": 16, "ymmword": 32}
_WIDEST = 64
_FRAME_BASES = frozenset({"", "esp", "ebp", "rsp", "rbp"})
_READS = frozenset({"call", "cmp", "div", "idiv", "imul", "jmp", "ldmxcsr", "mul", "push", "test", "bt"})
_STORES_OF_X87 = ("fst", "fist", "fbst", "fnst", "fsav", "fnsav", "fxsav")
_MODES = {Arch.X86: capstone.CS_MODE_32, Arch.X64: capstone.CS_MODE_64}


class StackPlace(NamedTuple):
    """A place of a variable: it holds from `begin` to `end`, offsets in the function.

    It is `size` bytes at a `distance` from the register `base`, which is "" for the virtual frame. `to_slot` is how far
    it is above the return address, None if that is not known. `is_only` says whether the variable has no other place.
    """

    begin: int
    end: int
    base: str
    distance: int
    size: int
    to_slot: int | None
    is_only: bool = False

    @property
    def is_argument(self) -> bool:
        """Say whether this is where the caller has put an argument, or may be.

        A structure that is passed by reference is in the caller's frame, too; a general register leads there.
        """
        return self.base in _FRAME_BASES and self.to_slot is not None and self.to_slot > 0


class _Store(NamedTuple):
    """An instruction that writes `size` bytes at a distance from the register `base`; `to_slot` as in `StackPlace`."""

    begin: int
    end: int
    base: str
    distance: int
    size: int
    to_slot: int | None

    def is_at(self, base: str, distance: int) -> bool:
        """Say whether it writes there; a `base` of "" is esp or ebp, at a distance that is not known."""
        return (self.base, self.distance) == (base, distance) if base else self.base in {"esp", "ebp"}

    def overlaps(self, base: str, distance: int, size: int) -> bool:
        """Say whether it writes one of these bytes, if their register has not changed meanwhile."""
        return self.base == base and _overlap(self.distance, self.size, distance, size)


class Stores:
    """The instructions of one function that write to the stack."""

    def __init__(self, arch: Arch, code: bytes, *, keeps_places: bool = False, has_handlers: bool = False) -> None:
        """`code` is the function, or its beginning.

        `keeps_places` says whether it was not optimised. With `has_handlers`, any of its code may run after any other.
        """
        self._is_followed = arch is Arch.X64
        self._keeps_places = keeps_places
        self._has_handlers = has_handlers
        self._depth = StackDepth(arch, code)
        self._stores = list(_stores(arch, code[:MOST_CODE], self._depth))

    def is_reused(self, place: StackPlace, at: int) -> bool:
        """Say whether something else may be at a place, when the instruction at the offset `at` runs."""
        if self._keeps_places and not (place.is_argument and self._depth.ends_with_jump):
            return False
        near = (store for store in self._stores if place.begin in (store.begin, store.end))
        first = None if place.is_argument else next((s for s in near if s.is_at(place.base, place.distance)), None)
        if first is None and not place.is_argument and (place.is_only or self._is_followed):
            return False
        base, distance, size = (place.base, place.distance, place.size) if first is None else first[2:5]
        return any(
            store is not first
            and place.begin <= store.begin < place.end
            and (store.overlaps(base, distance, size) or _is_stored(store, place))
            and self._may_be_over(store, at)
            for store in self._stores
        )

    def _may_be_over(self, store: _Store, at: int) -> bool:
        """Say whether a store may have been executed before the instruction at `at`: it is before, or in a loop."""
        return store.begin < at or self._has_handlers or self._depth.earliest_after(store.begin) <= at


def _overlap(one: int, size: int, other: int, other_size: int) -> bool:
    return one < other + other_size and other < one + size


def _is_stored(store: _Store, place: StackPlace) -> bool:
    """Say whether a store is to an argument or by the virtual frame, as far as the depth of the stack is known."""
    if store.to_slot is None or place.to_slot is None or (place.base and not place.is_argument):
        return False
    return _overlap(store.to_slot, store.size, place.to_slot, place.size)


def _only_reads(mnemonic: str) -> bool:
    """Say whether an instruction whose first operand is in memory reads it. Capstone does not know it of all."""
    return mnemonic in _READS or (mnemonic.startswith("f") and not mnemonic.startswith(_STORES_OF_X87))


def _stores(arch: Arch, code: bytes, depth: StackDepth) -> Iterator[_Store]:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, _MODES[arch])
    decoder.skipdata = True
    for at, size, mnemonic, operands in decoder.disasm_lite(code, 0):
        found = _AT_REGISTER.match(operands)
        if found is not None and not _only_reads(mnemonic):
            width, base, sign, number = found.groups()
            distance = int(f"{sign or ''}{number or 0}", 0)
            to_slot = depth.to_slot(at, base, distance)
            yield _Store(at, at + size, base, distance, _WIDTHS.get(width, _WIDEST), to_slot)
        depth.follow(at, mnemonic, operands)
