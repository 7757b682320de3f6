# SPDX-License-Identifier: Apache-2.0
"""Finds out from the code whether a variable's place on the stack was given to something else.

A variable that was in a register is stored on the stack when the register is needed. When nothing reads it any more,
the compiler may store another value there. clang 19 for x86 does not always say so: of

    f+0x09: mov byte ptr [ebp-10h], dl        ; the parameter `flag`
    ...
    f+0xb9: mov dword ptr [ebp-10h], ecx      ; something else

the PDB says that `flag` is at [ebp-10h] from f+0x0c up to the end. So a place that begins with a store is looked for in
the code for which it is said to hold: a second store means that nothing is certain. It may be a new value of the same
variable, which is then not shown although it could be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import capstone

from throwstack.core.registers import Arch

MOST_CODE = 1 << 16
"""How many bytes of a function are looked through."""
_AT_REGISTER = re.compile(r"(\w+) ptr \[(\w+)(?: ([+-]) (0x[0-9a-f]+|\d+))?\]")
"""The first operand, if it is in memory at a distance from a register alone."""
_WIDTHS = {"byte": 1, "word": 2, "dword": 4, "qword": 8, "xmmword": 16, "ymmword": 32}
_WIDEST = 64
_READS = frozenset({"call", "cmp", "div", "idiv", "imul", "jmp", "ldmxcsr", "mul", "push", "test", "bt"})
_STORES_OF_X87 = ("fst", "fist", "fbst", "fnst", "fsav", "fnsav", "fxsav")
_MODES = {Arch.X86: capstone.CS_MODE_32, Arch.X64: capstone.CS_MODE_64}


class _Store(NamedTuple):
    """An instruction that writes `size` bytes at a distance from the register `base`."""

    begin: int
    end: int
    base: str
    distance: int
    size: int

    def is_at(self, base: str, distance: int) -> bool:
        """Say whether it writes there; a `base` of "" is esp or ebp, at a distance that is not known."""
        return (self.base, self.distance) == (base, distance) if base else self.base in {"esp", "ebp"}

    def overlaps(self, other: _Store) -> bool:
        """Say whether both write a byte at the same place, if their register has not changed between them."""
        is_apart = self.distance >= other.distance + other.size or other.distance >= self.distance + self.size
        return self.base == other.base and not is_apart


class Stores:
    """The instructions of one function that write to the stack."""

    def __init__(self, arch: Arch, code: bytes) -> None:
        """`code` is the function, or its beginning."""
        self._stores = list(_stores(arch, code))

    def is_reused(self, begin: int, end: int, base: str, distance: int) -> bool:
        """Say whether a place that holds from `begin` to `end`, offsets in the function, is stored to again there.

        The place is at a `distance` from the register `base`; with a `base` of "" it is known to be below the return
        address. It was made by the instruction right before `begin`, or by the one there. If neither stores to it, it
        was not made by a store, and the result is False.
        """
        near = (store for store in self._stores if begin in (store.begin, store.end))
        first = next((one for one in near if one.is_at(base, distance)), None)
        if first is None:
            return False
        later = (store for store in self._stores if begin <= store.begin < end and store is not first)
        return any(store.overlaps(first) for store in later)


def _only_reads(mnemonic: str) -> bool:
    """Say whether an instruction whose first operand is in memory reads it. Capstone does not know it of all."""
    return mnemonic in _READS or (mnemonic.startswith("f") and not mnemonic.startswith(_STORES_OF_X87))


def _stores(arch: Arch, code: bytes) -> Iterator[_Store]:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, _MODES[arch])
    decoder.skipdata = True
    for at, size, mnemonic, operands in decoder.disasm_lite(code[:MOST_CODE], 0):
        found = _AT_REGISTER.match(operands)
        if found is not None and not _only_reads(mnemonic):
            width, base, sign, distance = found.groups()
            yield _Store(at, at + size, base, int(f"{sign or ''}{distance or 0}", 0), _WIDTHS.get(width, _WIDEST))
