# SPDX-License-Identifier: Apache-2.0
"""Reads managed exception objects: class, message, HRESULT, inner exceptions, the recorded stack.

Inner exceptions are followed 16 deep, at most 64 objects in all, each object once. What cannot be read is a reason of
the result, and costs nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from throwstack.core.memory import MemoryUnreadable
from throwstack.core.text import escape
from throwstack.managed.composed_messages import AGGREGATE, StoredMessage, composed_message
from throwstack.managed.exception_class import ExceptionClass
from throwstack.managed.heap_objects import MAX_STRING, HeapObjects
from throwstack.managed.managed_exception import ManagedException, ManagedFrame
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.methods import Methods
from throwstack.managed.runtime_memory import BudgetSpent, StructureError
from throwstack.managed.stack_trace import recorded_stack

_GUESSED = "taken for an exception by how it is filled: System.Exception itself is not readable"
MAX_DEPTH, MAX_OBJECTS, MAX_LIST, MAX_FRAMES_OF_ALL = 16, 64, 32, 2000
"""The last is the most frames of the recorded stacks of an exception and all its inner ones."""
_LIST, _COLLECTION = "System.Collections.Generic.List`1", "System.Collections.ObjectModel.ReadOnlyCollection`1"


@dataclass(frozen=True, slots=True)
class _Read:
    """An exception, and its message before it is escaped."""

    exception: ManagedException
    message: str | None


@dataclass(slots=True)
class _Tree:
    """An exception with its inner ones: the addresses of those that were read, and how many frames may be read yet."""

    seen: set[int] = field(default_factory=set)
    frames: int = MAX_FRAMES_OF_ALL


@dataclass(slots=True)
class _Object:
    """An exception object that is being read, and what could not be read of it."""

    objects: HeapObjects
    address: int
    reasons: list[str] = field(default_factory=list)

    def word(self, at: int | None, what: str) -> int:
        """Return the reference in the field at the offset `at`; 0, with a reason, if it cannot be read."""
        if at is None:
            self.reasons.append(f"{what} not readable: the fields of System.Exception are not known")
            return 0
        try:
            return self.objects.memory.word(self.address + at)
        except MemoryUnreadable as error:
            self.reasons.append(f"{what} not readable: {error}")
            return 0

    def string(self, at: int | None, what: str) -> tuple[str | None, bool]:
        """Return the string in the field at the offset `at` (None for null), and whether it could be read."""
        count = len(self.reasons)
        reference = self.word(at, what)
        try:
            return self.objects.string(reference), len(self.reasons) == count
        except (MemoryUnreadable, StructureError) as error:
            self.reasons.append(f"{what} not readable: {error}")
            return None, False

    def number(self, at: int | None, what: str) -> int | None:
        """Return the u32 in the field at the offset `at`; None, with a reason, if it cannot be read."""
        if at is None:
            self.reasons.append(f"{what} not readable: the fields of System.Exception are not known")
            return None
        try:
            return self.objects.memory.memory.u32(self.address + at)
        except MemoryUnreadable as error:
            self.reasons.append(f"{what} not readable: {error}")
            return None


class ExceptionObjects:
    """The exception objects of one process."""

    __slots__ = ("_has_inner_messages", "_kind", "_methods", "_objects")

    def __init__(self, objects: HeapObjects, kind: ExceptionClass, methods: Methods, *, is_framework: bool) -> None:
        """`is_framework`: of .NET Framework, where an AggregateException's message has not those of its inner ones."""
        self._objects = objects
        self._kind = kind
        self._methods = methods
        self._has_inner_messages = not is_framework

    def is_sound(self, address: int) -> bool:
        """Say whether an exception is at `address` whose message is null or a string. Raises BudgetSpent."""
        return (
            self._kind.is_exception(address)
            and (_Object(self._objects, address).string(self._kind.places.message, "message")[1])
        )

    def read(self, address: int) -> ManagedException:
        """Return the exception at `address`, which `ExceptionClass.is_exception` says is one, with its inner ones.

        Raises MemoryUnreadable if the object's first word is absent.
        """
        return self._read(address, 0, _Tree()).exception

    def _read(self, address: int, depth: int, tree: _Tree) -> _Read:
        tree.seen.add(address)
        objects, found = self._objects, _Object(self._objects, address)
        table = objects.method_table(address)
        try:
            return self._read_all(found, table, depth, tree)
        except BudgetSpent as error:
            reasons = (*found.reasons, str(error))
            return _Read(ManagedException("", (), None, None, address, table, reasons=reasons), None)

    def _read_all(self, found: _Object, table: int, depth: int, tree: _Tree) -> _Read:
        chain = self._objects.names(table)
        names = [name for _, name in chain]
        unnamed = [(index, item) for index, (item, name) in enumerate(chain) if not name]
        places = self._kind.places
        found.reasons += [_GUESSED] if self._kind.is_guess(found.address) else []
        found.reasons += [self._why_nameless(named, "a base class" if index else "class") for index, named in unnamed]
        shown = [self._objects.generics.name(item) if name else "" for item, name in chain]
        text, has_text = found.string(places.message, "message")
        hresult = found.number(places.hresult, "HRESULT")
        stack = self._stack(found, tree)
        listed = self._inner(found, names, depth, tree)
        message = None
        if has_text:
            messages = [None if item is None else item.message for item in listed] if self._has_inner_messages else []
            composed = composed_message(self._objects, found.address, StoredMessage(text, shown, hresult), messages)
            message = composed.text
            found.reasons += [composed.problem] if composed.problem else []
        remote, _ = found.string(places.remote_stack, "stack from elsewhere")
        exception = ManagedException(
            shown[0] if shown else "",
            tuple(shown[1:]),
            None if message is None else escape(message, MAX_STRING),
            hresult,
            found.address,
            table,
            tuple(item.exception for item in listed if item is not None),
            stack,
            escape(remote, MAX_STRING) if remote else None,
            tuple(found.reasons),
        )
        return _Read(exception, message)

    def _stack(self, found: _Object, tree: _Tree) -> tuple[ManagedFrame, ...]:
        address = found.word(self._kind.places.stack, "recorded stack")
        stack = recorded_stack(self._objects, self._methods, address, tree.frames)
        tree.frames -= len(stack.frames)
        found.reasons += [stack.problem] if stack.problem else []
        return stack.frames

    def _why_nameless(self, table: int, what: str) -> str:
        try:
            self._objects.types.name(table)
        except (StructureError, MetadataError) as error:
            return f"{what} not readable: {error}"
        return f"{what} not readable"

    def _inner(self, found: _Object, names: list[str], depth: int, tree: _Tree) -> list[_Read | None]:
        """Return the inner exceptions: all of an AggregateException, else one or none; None for one that is lost."""
        addresses = self._aggregated(found) if AGGREGATE in names else ()
        if not addresses:
            single = found.word(self._kind.places.inner, "inner exception")
            addresses = (single,) if single else ()
        inner: list[_Read | None] = []
        for item in addresses:
            if item in tree.seen:
                found.reasons.append(f"the inner exception at {item:#x} is shown elsewhere in the chain")
            elif depth >= MAX_DEPTH or len(tree.seen) >= MAX_OBJECTS:
                found.reasons.append(f"further inner exceptions, from {item:#x} on, are left out")
                break
            elif not self._kind.is_exception(item):
                found.reasons.append(f"there is no exception object at {item:#x}, where the inner one should be")
                inner.append(None)
            else:
                inner.append(self._read(item, depth + 1, tree))
        return inner

    def _aggregated(self, found: _Object) -> tuple[int, ...]:
        """Return the addresses of the exceptions in an AggregateException.

        They are in an array (.NET 6 and later), or in the list of a ReadOnlyCollection, which is an array or a List.
        """
        objects = self._objects
        try:
            place = objects.field(found.address, AGGREGATE, "_innerExceptions", "m_innerExceptions")
            if place is None:
                return ()
            held = objects.reference(found.address, place)
            for class_name, name in ((_COLLECTION, "list"), (_LIST, "_items")):
                place = objects.field(held, class_name, name) if held else None
                held = held if place is None else objects.reference(held, place)
            if not held:
                return ()
            array = objects.array(held)
        except BudgetSpent:
            raise
        except (MemoryUnreadable, StructureError, MetadataError) as error:
            found.reasons.append(f"the list of inner exceptions cannot be read: {error}")
            return ()
        if array.length > MAX_LIST:
            found.reasons.append(f"the first {MAX_LIST} of {array.length:,} places for inner exceptions are read")
        items = objects.references(array, MAX_LIST)
        if len(items) < min(array.length, MAX_LIST):
            found.reasons.append(f"only {len(items)} of {array.length:,} places for inner exceptions are readable")
        return tuple(item for item in items if item)
