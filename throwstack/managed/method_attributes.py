# SPDX-License-Identifier: Apache-2.0
"""What attributes say of a method: whether stack traces leave it out, and which method a state machine was made from.

`System.Diagnostics.StackTrace.ToString` (dotnet/runtime) leaves out methods that are marked StackTraceHidden,
themselves or by their type, and methods that are marked for aggressive inlining.

The compiler of C# turns an async method, or one with `yield`, into a class with a method MoveNext. For example,
`Shop.Load` becomes `Shop.<Load>d__1.MoveNext`. The original method has an attribute that names the class:
AsyncStateMachine, IteratorStateMachine or AsyncIteratorStateMachine. The runtime prints the original method, and of an
iterator `+MoveNext()` after it.

CustomAttribute (ECMA-335, II.22.10) has the columns parent, constructor, value, and is sorted by the parent.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from throwstack.managed.metadata import Metadata
from throwstack.managed.metadata_tables import Table, decode_coded
from throwstack.managed.signature_types import compressed

_ON_METHOD, _ON_TYPE, _PARENT_BITS = 0, 3, 5
"""HasCustomAttribute: the tags of MethodDef and TypeDef, and how many bits a tag has."""
_AGGRESSIVE_INLINING = 0x100
_HIDDEN = "System.Diagnostics.StackTraceHiddenAttribute"
_SERVICES = "System.Runtime.CompilerServices."
_ITERATORS = frozenset({f"{_SERVICES}IteratorStateMachineAttribute", f"{_SERVICES}AsyncIteratorStateMachineAttribute"})
_STATE_MACHINES = _ITERATORS | {f"{_SERVICES}AsyncStateMachineAttribute"}
_MAX_ATTRIBUTES, _MAX_METHODS, _MAX_NESTED, _MAX_LOOKED_AT = 32, 1024, 16, 2048
"""The last is the most attributes that are looked at for one state machine."""
_PROLOG = b"\x01\x00"


def is_hidden(metadata: Metadata, method: int) -> bool:
    """Say whether the runtime's stack traces leave out the method in this row of MethodDef. Raises MetadataError."""
    if metadata.tables.cell(Table.METHOD_DEF, method, 1) & _AGGRESSIVE_INLINING:
        return True
    owner = metadata.owner_of_method(method)
    places = (method << _PARENT_BITS | _ON_METHOD, owner << _PARENT_BITS | _ON_TYPE)
    return any(name == _HIDDEN for place in places for name, _ in _attributes(metadata, place))


def original_method(metadata: Metadata, method: int) -> str:
    """Return type, name and parameters of the method that the state machine of `method`, a MoveNext, was made from.

    "" if `method` is no such MoveNext. Raises MetadataError.
    """
    machine = metadata.owner_of_method(method)
    outer = outer_type(metadata, machine)
    if outer is None or metadata.method_name(method) != "MoveNext":
        return ""
    wanted = reflection_name(metadata, machine)
    candidates = _methods(metadata, outer, metadata.type_name(machine))
    given = (
        (candidate, *attribute)
        for candidate in candidates
        for attribute in _attributes(metadata, candidate << _PARENT_BITS | _ON_METHOD)
    )
    for candidate, name, value in islice(given, _MAX_LOOKED_AT):
        if name in _STATE_MACHINES and _names_type(metadata.blob(value), wanted):
            text = metadata.full_method_name(candidate) + metadata.parameters(candidate)
            return f"{text}+MoveNext()" if name in _ITERATORS else text
    return ""


def outer_type(metadata: Metadata, rid: int) -> int | None:
    """Return the row of the type in which the type `rid` is nested, None if it is not. Raises MetadataError."""
    at = metadata.tables.last_not_above(Table.NESTED_CLASS, 0, rid)
    inner, outer = metadata.tables.row(Table.NESTED_CLASS, at) if at else (0, 0)
    return outer if at and inner == rid else None


def reflection_name(metadata: Metadata, rid: int) -> str:
    """Return the name of the type `rid` as reflection writes it: `Shop.Orders+Line`. Raises MetadataError."""
    name = metadata.type_name(rid)
    parts: list[str] = []
    outer = outer_type(metadata, rid)
    while outer is not None and len(parts) < _MAX_NESTED:
        outer_name = metadata.type_name(outer)
        parts.append(name[len(outer_name) + 1 :])
        name = outer_name
        outer = outer_type(metadata, outer)
    return "+".join([name, *reversed(parts)])


def _methods(metadata: Metadata, owner: int, machine_name: str) -> Iterator[int]:
    """Yield the methods of the type `owner`, those first after which the state machine is named: `<Load>d__1`."""
    first = metadata.tables.cell(Table.TYPE_DEF, owner, 5)
    is_last = owner >= metadata.count(Table.TYPE_DEF)
    end = metadata.count(Table.METHOD_DEF) + 1 if is_last else metadata.tables.cell(Table.TYPE_DEF, owner + 1, 5)
    rows = range(first, min(end, first + _MAX_METHODS))
    yield from sorted(rows, key=lambda row: f".<{metadata.method_name(row)}>" not in machine_name)


def _attributes(metadata: Metadata, parent: int) -> Iterator[tuple[str, int]]:
    """Yield (class, offset of the value's blob) of each attribute of `parent`, a coded index HasCustomAttribute."""
    at = metadata.tables.last_not_above(Table.CUSTOM_ATTRIBUTE, 0, parent)
    for row in range(at, max(at - _MAX_ATTRIBUTES, 0), -1):
        whose, constructor, value = metadata.tables.row(Table.CUSTOM_ATTRIBUTE, row)
        if whose != parent:
            return
        yield _class_of(metadata, constructor), value


def _class_of(metadata: Metadata, constructor: int) -> str:
    """Return the class of a constructor, a coded index CustomAttributeType; "" for one that no attribute has here."""
    table, rid = decode_coded("CustomAttributeType", constructor)
    if table == Table.METHOD_DEF:
        return metadata.type_name(metadata.owner_of_method(rid))
    table, rid = decode_coded("MemberRefParent", metadata.tables.cell(Table.MEMBER_REF, rid, 0))
    if table == Table.TYPE_DEF:
        return metadata.type_name(rid)
    return metadata.type_ref_name(rid) if table == Table.TYPE_REF else ""


def _names_type(value: bytes, wanted: str) -> bool:
    """Say whether an attribute's value (II.23.3) begins with the name of the type `wanted`."""
    if not value.startswith(_PROLOG):
        return False
    length, at = compressed(value, len(_PROLOG))
    name = value[at : at + length].decode("utf-8", "replace")
    return name.split(",", 1)[0] == wanted
