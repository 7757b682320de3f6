# SPDX-License-Identifier: Apache-2.0
"""Which objects are exceptions, and where the fields of System.Exception are.

An object is an exception if the chain of its MethodTable's bases reaches System.Exception: the MethodTable that the
runtime's contract names, else one of that name whose base is System.Object. The fields are found by name, or by the
contract.
"""

from __future__ import annotations

from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.managed.heap_objects import HeapObjects
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.runtime_layout import RuntimeLayout
from throwstack.managed.runtime_memory import BudgetSpent, StructureError

_EXCEPTION, _OBJECT = "System.Exception", "System.Object"
_SHORTEST_CHAIN = 2
_FIELDS = ("_message", "_innerException", "_stackTrace", "_remoteStackTraceString", "_HResult")


@dataclass(frozen=True, slots=True)
class ExceptionPlaces:
    """Offsets in bytes of the fields of System.Exception from the object's address; an unknown one is None."""

    message: int | None = None
    inner: int | None = None
    stack: int | None = None
    remote_stack: int | None = None
    hresult: int | None = None


class ExceptionClass:
    """The class System.Exception of one process."""

    __slots__ = ("_base", "_is_guessed", "_known", "_layout", "_objects", "_places", "_taken")

    def __init__(self, objects: HeapObjects, layout: RuntimeLayout) -> None:
        """Both are of the same process."""
        self._objects = objects
        self._layout = layout
        self._places: ExceptionPlaces | None = None
        self._known: dict[int, bool] = {}
        self._base = self._base_of_contract()
        self._is_guessed = False
        self._taken: set[int] = set()

    def _base_of_contract(self) -> int:
        """Return the MethodTable of System.Exception by the contract, 0 if it does not say."""
        contract, memory = self._layout.contract, self._objects.memory
        variable = 0 if contract is None else contract.globals.get("ExceptionMethodTable", 0)
        try:
            return memory.word(variable) if variable else 0
        except MemoryUnreadable:
            return 0

    def is_exception(self, address: int) -> bool:
        """Say whether an exception object is at `address`. Raises BudgetSpent."""
        memory = self._objects.memory
        if not memory.is_pointer(address):
            return False
        if address in self._taken:
            return True
        try:
            table = self._objects.method_table(address)
        except MemoryUnreadable:
            return False
        known = self._known.get(table)
        if known is None:
            known = self._known[table] = self._derives(table)
        return known

    def _derives(self, table: int) -> bool:
        if not self._objects.tables.is_genuine(table):
            return False
        if self._base:
            return self._base in self._objects.tables.chain(table)
        names = self._objects.names(table)
        for index, (base, name) in enumerate(names[:-1]):
            if name == _EXCEPTION and names[index + 1][1] == _OBJECT:
                self._base = base
                self._objects.tables.trust_layout()
                return True
        return False

    def adopt(self, address: int, places: ExceptionPlaces) -> None:
        """Take the object at `address` for an exception, with its fields at `places`.

        If the chain of its bases is whole, the class next to the last one, whose base is System.Object, is taken for
        System.Exception, and with it all that derive from it. Else this object alone is taken for an exception.
        """
        try:
            chain = list(self._objects.tables.chain(self._objects.method_table(address)))
        except MemoryUnreadable:
            return
        self._places = places
        is_whole = len(chain) >= _SHORTEST_CHAIN and self._objects.tables.parent(chain[-1]) == 0
        if is_whole and not self._base:
            self._base, self._is_guessed = chain[-2], True
            self._known.clear()
        else:
            self._taken.add(address)

    def is_guess(self, address: int) -> bool:
        """Say whether the object at `address` was taken for an exception, because its class could not be read."""
        return self._is_guessed or address in self._taken

    @property
    def places(self) -> ExceptionPlaces:
        """Return where the fields are; of a process in which an exception was found. Raises BudgetSpent."""
        if self._places is not None:
            return self._places
        found = self._places_of_contract() or self._places_by_name()
        if found is not None:
            self._places = found
        return found or ExceptionPlaces()

    def _places_of_contract(self) -> ExceptionPlaces | None:
        contract = self._layout.contract
        known = {} if contract is None else contract.fields.get("Exception", {})
        return ExceptionPlaces(*map(known.get, _FIELDS)) if _FIELDS[0] in known else None

    def _places_by_name(self) -> ExceptionPlaces | None:
        if not self._base:
            return None
        try:
            known = self._objects.types.fields(self._base)
        except BudgetSpent:
            raise
        except (StructureError, MetadataError):
            return None
        return ExceptionPlaces(*(known[name].offset if name in known else None for name in _FIELDS))
