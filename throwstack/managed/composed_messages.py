# SPDX-License-Identifier: Apache-2.0
"""What the property Message of the runtime's exception classes returns: the stored message, and what is added.

The field `_message` is not the whole message. `AggregateException.Message` appends those of its inner exceptions,
`ArgumentException.Message` the name of the parameter. The texts are those of the English resources of dotnet/runtime.
Which version composes is seen from the fields of System.Exception: .NET Core 3, whose text for a parameter is another,
has no field `_className` any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from throwstack.core.memory import MemoryUnreadable
from throwstack.managed.heap_objects import HeapObjects
from throwstack.managed.runtime_memory import StructureError

_NEW_LINE = "\r\n"
AGGREGATE = "System.AggregateException"
_ARGUMENT = "System.ArgumentException"
_OUT_OF_RANGE = "System.ArgumentOutOfRangeException"
_DISPOSED = "System.ObjectDisposedException"
_FILE_NOT_FOUND, _FILE_LOAD = "System.IO.FileNotFoundException", "System.IO.FileLoadException"
_BAD_IMAGE = "System.BadImageFormatException"
_COULD_NOT_LOAD = {
    0x80070002: "The system cannot find the file specified.",
    0x8007000B: "An attempt was made to load a program with an incorrect format.",
    0x80131040: "The located assembly's manifest definition does not match the assembly reference.",
}
"""What follows `Could not load file or assembly …` for an HRESULT; other texts come from the system."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """What an exception object stores: `_message` (None for null), its class and bases by name, its HRESULT."""

    text: str | None
    class_names: Sequence[str]
    hresult: int | None


def composed_message(
    objects: HeapObjects,
    address: int,
    stored: StoredMessage,
    inner: Sequence[str | None],
) -> str | None:
    """Return what Message returns in English for the exception object at `address`; None if it cannot be told.

    `inner` are the messages of the inner exceptions of an AggregateException. Nothing is escaped. Raises BudgetSpent.
    """
    class_names, message = stored.class_names, stored.text
    own = class_names[0] if class_names else ""
    if message is None:
        message = _default(objects, address, class_names, stored.hresult) if own else None
        if message is None:
            message = f"Exception of type '{own}' was thrown." if own else None
    if message is None:
        return None
    if AGGREGATE in class_names:
        return _aggregate(message, inner)
    if _ARGUMENT in class_names:
        return _argument(objects, address, message, class_names)
    if _DISPOSED in class_names:
        name = _text(objects, address, _DISPOSED, "_objectName", "objectName", "m_objectName")
        return f"{message}{_NEW_LINE}Object name: '{name}'." if name else message
    return message


def _text(objects: HeapObjects, address: int, class_name: str, *fields: str) -> str | None:
    """Return the string in one of `fields`, None if it is null or cannot be read."""
    place = objects.field(address, class_name, *fields)
    try:
        return None if place is None else objects.string(objects.reference(address, place))
    except (MemoryUnreadable, StructureError):
        return None


def _aggregate(message: str, inner: Sequence[str | None]) -> str:
    """Since .NET Core 2.0. .NET Framework has the stored message alone: `inner` is then empty."""
    return " ".join([message, *(f"({text})" for text in inner if text is not None)])


def _argument(objects: HeapObjects, address: int, message: str, class_names: Sequence[str]) -> str:
    is_old = objects.field(address, "System.Exception", "_className") is not None
    name = _text(objects, address, _ARGUMENT, "_paramName", "m_paramName")
    if name:
        message += f"{_NEW_LINE}Parameter name: {name}" if is_old else f" (Parameter '{name}')"
    if _OUT_OF_RANGE not in class_names:
        return message
    place = objects.field(address, _OUT_OF_RANGE, "_actualValue", "m_actualValue")
    try:
        value = 0 if place is None else objects.reference(address, place)
    except MemoryUnreadable:
        value = 0
    text = objects.text_of(value) if value else None
    return message if text is None else f"{message}{_NEW_LINE}Actual value was {text}."


def _default(objects: HeapObjects, address: int, class_names: Sequence[str], hresult: int | None) -> str | None:
    """Return the message that a class composes when none is stored; None if it is that of every other exception."""
    for class_name in (_FILE_NOT_FOUND, _FILE_LOAD, _BAD_IMAGE):
        if class_name in class_names:
            file = _text(objects, address, class_name, "_fileName", "<FileName>k__BackingField")
            cause = _COULD_NOT_LOAD.get(hresult or 0)
            if file and cause:
                return f"Could not load file or assembly '{file}'. {cause}"
    return None
