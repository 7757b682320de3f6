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
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.runtime_memory import BudgetSpent, StructureError

_NEW_LINE = "\r\n"
AGGREGATE = "System.AggregateException"
_ARGUMENT = "System.ArgumentException"
_OUT_OF_RANGE = "System.ArgumentOutOfRangeException"
_DISPOSED = "System.ObjectDisposedException"
_FILE_NOT_FOUND, _FILE_LOAD = "System.IO.FileNotFoundException", "System.IO.FileLoadException"
_BAD_IMAGE = "System.BadImageFormatException"
_COMPOSED_HERE = frozenset({AGGREGATE, _ARGUMENT, _OUT_OF_RANGE, _DISPOSED})
_STORED_WHOLE = frozenset(
    {
        *(_FILE_NOT_FOUND, _FILE_LOAD, _BAD_IMAGE, "System.TypeLoadException", "System.MissingMemberException"),
        *("System.MissingMethodException", "System.MissingFieldException"),
    }
)
"""Classes that compose their message once, and then store it."""
_COULD_NOT_LOAD = {
    0x80070002: "The system cannot find the file specified.",
    0x8007000B: "An attempt was made to load a program with an incorrect format.",
    0x80131040: "The located assembly's manifest definition does not match the assembly reference.",
}
"""What follows `Could not load file or assembly …` for an HRESULT; other texts come from the system."""


_LOST = "…"


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """What an exception object stores: `_message` (None for null), its class and bases by name, its HRESULT."""

    text: str | None
    class_names: Sequence[str]
    hresult: int | None


@dataclass(frozen=True, slots=True)
class ComposedMessage:
    """A message as Message returns it, None if it cannot be told; `problem` says what may be missing of it, or ""."""

    text: str | None
    problem: str = ""


def composed_message(
    objects: HeapObjects, address: int, stored: StoredMessage, inner: Sequence[str | None]
) -> ComposedMessage:
    """Return what Message returns in English for the exception object at `address`.

    `inner` are the messages of the inner exceptions of an AggregateException, None for one that cannot be read: the
    message has `…` in its place. Nothing is escaped. Raises BudgetSpent.
    """
    text = stored.text
    try:
        composer = _composer(objects, address)
        if text is None:
            text = _loader_message(objects, address, stored)
        if composer and composer not in _COMPOSED_HERE and (text is None or composer not in _STORED_WHOLE):
            what = "composes its message when it is asked for it"
            return ComposedMessage(text, f"{composer} {what}" + (": this is what it stores" if text else ""))
        if text is None:
            own = stored.class_names[0] if stored.class_names else ""
            text = f"Exception of type '{own}' was thrown." if own else None
        return ComposedMessage(_added(objects, address, text, stored.class_names, inner))
    except BudgetSpent:
        raise
    except (MemoryUnreadable, StructureError, MetadataError) as error:
        return ComposedMessage(text, f"what the class adds to the message is not readable: {error}")


def _added(
    objects: HeapObjects, address: int, text: str | None, class_names: Sequence[str], inner: Sequence[str | None]
) -> str | None:
    """Return `text` with what the class adds to it."""
    if text is None:
        return None
    if AGGREGATE in class_names:
        # Since .NET Core 2.0. .NET Framework has the stored message alone: `inner` is then empty.
        return " ".join([text, *(f"({_LOST if message is None else message})" for message in inner)])
    if _ARGUMENT in class_names:
        text = _with_parameter(objects, address, text)
        return _with_value(objects, address, text) if _OUT_OF_RANGE in class_names else text
    if _DISPOSED in class_names:
        name = _text(objects, address, _DISPOSED, "_objectName", "objectName", "m_objectName")
        return f"{text}{_NEW_LINE}Object name: '{name}'." if name else text
    return text


def _text(objects: HeapObjects, address: int, class_name: str, *fields: str) -> str | None:
    """Return the string in one of `fields`, None if it is null or there is no such field."""
    place = objects.field(address, class_name, *fields)
    return None if place is None else objects.string(objects.reference(address, place))


def _with_parameter(objects: HeapObjects, address: int, text: str) -> str:
    name = _text(objects, address, _ARGUMENT, "_paramName", "m_paramName")
    if not name:
        return text
    is_old = objects.field(address, "System.Exception", "_className") is not None
    return text + (f"{_NEW_LINE}Parameter name: {name}" if is_old else f" (Parameter '{name}')")


def _with_value(objects: HeapObjects, address: int, text: str) -> str:
    place = objects.field(address, _OUT_OF_RANGE, "_actualValue", "m_actualValue")
    value = 0 if place is None else objects.reference(address, place)
    shown = objects.text_of(value) if value else None
    return text if shown is None else f"{text}{_NEW_LINE}Actual value was {shown}."


def _composer(objects: HeapObjects, address: int) -> str:
    """Return the class of the object, or its nearest base, that has a Message of its own; "" if none has one."""
    for table, name in objects.names(objects.method_table(address)):
        if name == "System.Exception":
            break
        if name and objects.types.has_method(table, "get_Message"):
            return name
    return ""


def _loader_message(objects: HeapObjects, address: int, stored: StoredMessage) -> str | None:
    """Return the message of an assembly that was not loaded, which is composed when it is asked for; else None."""
    for class_name in (_FILE_NOT_FOUND, _FILE_LOAD, _BAD_IMAGE):
        if class_name in stored.class_names:
            file = _text(objects, address, class_name, "_fileName", "<FileName>k__BackingField")
            cause = _COULD_NOT_LOAD.get(stored.hresult or 0)
            if file and cause:
                return f"Could not load file or assembly '{file}'. {cause}"
    return None
