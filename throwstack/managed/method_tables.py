# SPDX-License-Identifier: Apache-2.0
"""MethodTables, the runtime's types, and how a genuine one is told from other memory.

An object begins with a pointer to its MethodTable. A MethodTable points to an EEClass, and the EEClass points back to
it. Instantiations of a generic type share an EEClass: then the MethodTable has a pointer to the canonical MethodTable
in the EEClass's place, marked by a low bit (1 in .NET 8 and later, 2 before), and the canonical one's EEClass points
back. Nothing else in memory has this cross-reference, apart from rare accidents, which the type's name rules out later.
"""

from __future__ import annotations

from collections.abc import Iterator

from throwstack.core.memory import MemoryUnreadable
from throwstack.managed.runtime_layout import RuntimeLayout
from throwstack.managed.runtime_memory import RuntimeMemory

MAX_PARENTS = 32
_MARKS = 3
_CLASS_WORDS = 12
"""The first words of an EEClass, among which the pointers to the MethodTable, the fields and the methods are."""


class MethodTables:
    """The MethodTables of one process."""

    __slots__ = ("_class_at", "_classes", "_layout", "_memory", "_owner_at")

    def __init__(self, memory: RuntimeMemory, layout: RuntimeLayout) -> None:
        """`layout` says where the members are; if it is a guess, the words beside these places are tried too."""
        self._memory = memory
        self._layout = layout
        size = layout.pointer_size
        nearby = () if layout.contract is not None else (0, -size, size)
        self._class_at = list(dict.fromkeys([layout.eeclass, *(layout.eeclass + step for step in nearby)]))
        self._owner_at = list(
            dict.fromkeys([layout.class_method_table, *(index * size for index in range(8) if nearby)])
        )
        self._classes: dict[int, int | None] = {}

    def trust_layout(self) -> None:
        """Stop trying words beside the places that were right so far: a type of a known name was found by them."""
        del self._class_at[1:]
        del self._owner_at[1:]

    def learnt(self) -> list[str]:
        """Return where the cross-reference of a type was last found, and how many types had it, in words."""
        genuine = sum(eeclass is not None for eeclass in self._classes.values())
        places = f"EEClass at {self._class_at[0]:#x}, back at {self._owner_at[0]:#x}"
        return [f"{places}; {genuine} of {len(self._classes)} places were types"]

    def eeclass(self, method_table: int) -> int | None:
        """Return the address of the EEClass of a genuine MethodTable; None if `method_table` is not one."""
        if method_table not in self._classes:
            self._classes[method_table] = self._find(method_table, is_canonical=False)
        return self._classes[method_table]

    def is_genuine(self, method_table: int) -> bool:
        """Say whether a MethodTable is at this address."""
        return self.eeclass(method_table) is not None

    def _find(self, method_table: int, *, is_canonical: bool) -> int | None:
        memory = self._memory
        if not memory.is_pointer(method_table):
            return None
        for at in self._class_at:
            try:
                value = memory.word(method_table + at)
            except MemoryUnreadable:
                continue
            found = None
            if not value & _MARKS:
                found = self._direct(method_table, at)
            elif not is_canonical:
                found = self._shared(method_table + at, value)
            if found is not None:
                self._class_at.remove(at)
                self._class_at.insert(0, at)
                return found
        return None

    def _direct(self, method_table: int, at: int) -> int | None:
        """Return the EEClass to which the word at `at` points, if that points back to `method_table`."""
        for eeclass in self._memory.targets(method_table + at):
            for owner_at in self._owner_at:
                if self._memory.leads_to(eeclass + owner_at, method_table):
                    self._owner_at.remove(owner_at)
                    self._owner_at.insert(0, owner_at)
                    return eeclass
        return None

    def _shared(self, place: int, value: int) -> int | None:
        """Return the EEClass of the canonical MethodTable to which the marked `value` at `place` points."""
        memory = self._memory
        for canonical in (value & ~_MARKS, (place + value) & ~_MARKS & memory.mask):
            if memory.is_pointer(canonical):
                eeclass = self._classes.get(canonical) or self._find(canonical, is_canonical=True)
                if eeclass is not None:
                    return eeclass
        return None

    def parent(self, method_table: int) -> int | None:
        """Return the MethodTable of the type's base, 0 if it has none, None if it cannot be read."""
        place = method_table + self._layout.parent
        try:
            if self._memory.word(place) == 0:
                return 0
        except MemoryUnreadable:
            return None
        return next((target for target in self._memory.targets(place) if self.is_genuine(target)), None)

    def chain(self, method_table: int) -> Iterator[int]:
        """Yield the genuine MethodTable `method_table` and those of its bases, at most 32."""
        current: int | None = method_table
        seen: set[int] = set()
        while current and current not in seen and len(seen) < MAX_PARENTS:
            seen.add(current)
            yield current
            current = self.parent(current)

    def class_targets(self, method_table: int, first: int) -> Iterator[int]:
        """Yield what the words of the type's EEClass may point to, beginning with the word at the offset `first`.

        With a contract only that word is looked at.
        """
        eeclass = self.eeclass(method_table)
        if eeclass is None:
            return
        size = self._layout.pointer_size
        others = () if self._layout.contract is not None else range(0, _CLASS_WORDS * size, size)
        for at in dict.fromkeys((first, *others)):
            yield from self._memory.targets(eeclass + at)

    def is_same_class(self, method_table: int, other: int) -> bool:
        """Say whether both are genuine MethodTables with the same EEClass: the same type, or of one generic type."""
        eeclass = self.eeclass(method_table)
        return eeclass is not None and eeclass == self.eeclass(other)
