# SPDX-License-Identifier: Apache-2.0
"""The metadata of one managed image: names of its types, methods, fields and parameters.

Follows ECMA-335, II.24 (metadata root, streams, heaps) and II.22 (tables). Names are put together as the runtime's own
stack traces print them (`System.Diagnostics.StackTrace.ToString`): `Namespace.Outer.Inner`, `Method[T](T x, Int32 n)`.
Nothing is read before it is needed, and a look-up reads a few rows: images of the runtime have 40,000 methods.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.text import escape
from throwstack.managed.cli_header import CliHeader
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.metadata_tables import MetadataTables, Table, decode_coded
from throwstack.managed.signature_types import SignatureReader, compressed
from throwstack.managed.work import Work

_SIGNATURE, _MAX_VERSION, _MAX_STREAMS, _MAX_STREAM_NAME = b"BSJB", 255, 16, 32
_MAX_STREAM = 1 << 28
_MAX_NAME = 1024
"""The most bytes of a name; the runtime itself allows 1,023."""
_MAX_BLOB = 1 << 14
_MAX_NESTED, _MAX_PARAMETERS, _MAX_SPECS, _MAX_SPECIFIED = 16, 1024, 8, 256
_MAX_TEXT = 2048
"""The most characters of a type's name with its outer types, and of a method's parameters together."""
_BLOB_STEP = 16
"""How many bytes of a blob count as one step of work."""
_MAX_KEPT = 8192
"""The most names of types that are kept."""
_RESERVED = str.maketrans({character: f"\\{character}" for character in "\\,[]&*+"})
"""Reflection marks these with a backslash in the name of a type. C++/CLI has such names: `pair<int\\,int>`."""


class Metadata:
    """The metadata of one image. What cannot be read raises MetadataError with the reason; absent is never empty."""

    __slots__ = ("_blobs", "_function_pointer", "_memory", "_strings", "_type_names", "header", "tables")

    def __init__(
        self, memory: Memory, header: CliHeader, work: Work | None = None, *, function_pointer: str = "IntPtr"
    ) -> None:
        """`header` is that of an image in `memory`. Raises MetadataError if the metadata's root cannot be used.

        `work` counts what is read of the metadata of all images of a process. Once it is spent, WorkSpent is raised.
        `function_pointer` is the runtime's word for a function pointer (`RuntimeLayout`).
        """
        self._memory = memory
        self._function_pointer = function_pointer
        self.header = header
        self._type_names: dict[int, str] = {}
        rva, size = header.metadata
        streams = self._streams(header.address(rva), size)
        if "#~" not in streams:
            message = f"the metadata of the image at {header.base:#x} have no stream #~"
            raise MetadataError(message)
        self.tables = MetadataTables(memory, *streams["#~"], work)
        self._strings = streams.get("#Strings", (0, 0))
        self._blobs = streams.get("#Blob", (0, 0))

    @classmethod
    def of_image(
        cls,
        memory: Memory,
        base: int,
        work: Work | None = None,
        *,
        is_flat: bool = False,
        function_pointer: str = "IntPtr",
    ) -> Metadata | None:
        """Return the metadata of the image at `base`; None if the image is not managed.

        `is_flat` says that the image is in memory as its file is on disk, and not laid out by its sections. The other
        arguments are those of the class.

        Raises:
            MetadataError: the headers or the metadata's root are absent or damaged.
        """
        header = CliHeader.read(memory, base, is_flat=is_flat)
        return None if header is None else cls(memory, header, work, function_pointer=function_pointer)

    def count(self, table: Table) -> int:
        """Return how many rows `table` has."""
        return self.tables.count(table)

    @property
    def module_name(self) -> str:
        """Return the name of the module, as its compiler wrote it: `Shop.dll`."""
        return self._string(self.tables.cell(Table.MODULE, 1, 1))

    def type_name(self, rid: int) -> str:
        """Return the name of the type in row `rid` of TypeDef, with namespace and outer types: `Shop.Orders.Line`."""
        known = self._type_names.get(rid)
        if known is None:
            if len(self._type_names) >= _MAX_KEPT:
                self._type_names.clear()
            known = self._type_names[rid] = self._qualified(rid)
        return known

    def _qualified(self, rid: int) -> str:
        parts: list[str] = []
        while len(parts) < _MAX_NESTED:
            row = self.tables.row(Table.TYPE_DEF, rid)
            parts.append(self._string(row[1], _RESERVED))
            outer = self._outer(rid)
            if outer is None:
                namespace = self._string(row[2], _RESERVED)
                return self._short_enough(".".join([*([namespace] if namespace else []), *reversed(parts)]), rid)
            rid = outer
        message = f"type {rid} is nested too deeply"
        raise MetadataError(message)

    @staticmethod
    def _short_enough(name: str, rid: int) -> str:
        if len(name) > _MAX_TEXT:
            message = f"the name of type {rid} has {len(name):,} characters"
            raise MetadataError(message)
        return name

    def _outer(self, rid: int) -> int | None:
        """Return the row of the type in which type `rid` is nested, or None. NestedClass is sorted by the inner one."""
        at = self.tables.last_not_above(Table.NESTED_CLASS, 0, rid)
        if not at:
            return None
        inner, outer = self.tables.row(Table.NESTED_CLASS, at)
        return outer if inner == rid else None

    def method_name(self, rid: int) -> str:
        """Return the name of the method in row `rid` of MethodDef, without its type."""
        return self._string(self.tables.cell(Table.METHOD_DEF, rid, 3))

    def field_name(self, rid: int) -> str:
        """Return the name of the field in row `rid` of Field, without its type."""
        return self._string(self.tables.cell(Table.FIELD, rid, 1))

    def owner_of_method(self, rid: int) -> int:
        """Return the row in TypeDef of the type that has the method `rid`. Raises MetadataError if none has it."""
        return self._owner(Table.METHOD_DEF, rid, 5)

    def owner_of_field(self, rid: int) -> int:
        """Return the row in TypeDef of the type that has the field `rid`. Raises MetadataError if none has it."""
        return self._owner(Table.FIELD, rid, 4)

    def _owner(self, table: Table, rid: int, column: int) -> int:
        """Return the last type whose list in `column` begins at or before row `rid` of `table`."""
        owner = self.tables.last_not_above(Table.TYPE_DEF, column, rid)
        if not 1 <= rid <= self.count(table) or not owner:
            message = f"no type has row {rid} of metadata table {table:#04x}"
            raise MetadataError(message)
        first, end = self._list(Table.TYPE_DEF, owner, column, table)
        if not first <= rid < end:
            message = "the metadata table of types is not in order"
            raise MetadataError(message)
        return owner

    def _list(self, table: Table, rid: int, column: int, members: Table) -> tuple[int, int]:
        """Return the rows (first, end) of `members` that row `rid` of `table` has: up to the next row's first."""
        first = self.tables.cell(table, rid, column)
        is_last = rid >= self.count(table)
        return first, self.count(members) + 1 if is_last else self.tables.cell(table, rid + 1, column)

    def full_method_name(self, rid: int) -> str:
        """Return type and name of the method `rid`: `Shop.Orders.Add`. A method of no type has its name alone."""
        owner = self.owner_of_method(rid)
        name = self.method_name(rid)
        return name if owner == 1 else f"{self.type_name(owner)}.{name}"

    def parameters(self, rid: int) -> str:
        """Return the parameters of method `rid` as the runtime's stack traces print them: `[T](T x, List`1 items)`.

        More than 2,048 characters are cut, with `…` as the end.
        """
        names = _NamesInMethod(self, rid)
        signature = self.blob(self.tables.cell(Table.METHOD_DEF, rid, 4))
        type_parameters, types = SignatureReader(signature, names, self._function_pointer).parameter_types()
        if type_parameters > _MAX_PARAMETERS:
            message = f"method {rid} has {type_parameters:,} type parameters"
            raise MetadataError(message)
        given = self._parameter_names(rid)
        words = [f"{kind} {given[number]}" if number in given else kind for number, kind in enumerate(types, 1)]
        generic = ",".join(names.method_variable(number) for number in range(type_parameters))
        text = f"[{generic}]({', '.join(words)})" if type_parameters else f"({', '.join(words)})"
        return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"

    def _parameter_names(self, rid: int) -> dict[int, str]:
        """Return the names of the parameters of method `rid`, by their number from 1; not all need to have a name."""
        first, end = self._list(Table.METHOD_DEF, rid, 5, Table.PARAM)
        if end - first > _MAX_PARAMETERS:
            message = f"method {rid} has {end - first:,} parameters"
            raise MetadataError(message)
        rows = [self.tables.row(Table.PARAM, number) for number in range(first, end)]
        return {sequence: self._string(name) for _, sequence, name in rows if sequence}

    def generic_parameter(self, owner: int, number: int) -> str:
        """Return the name of type parameter `number` (from 0) of `owner`, a coded index TypeOrMethodDef."""
        at = self.tables.last_not_above(Table.GENERIC_PARAM, 2, owner)
        # Sorted by owner, then by number: the last one of the owner is known, and how many there are from its number.
        if at:
            last, _, whose, _ = self.tables.row(Table.GENERIC_PARAM, at)
            row = at - last + number
            if whose == owner and number <= last and row >= 1:
                found, _, whose, name = self.tables.row(Table.GENERIC_PARAM, row)
                if (found, whose) == (number, owner):
                    return self._string(name)
        message = f"the owner {owner:#x} has no type parameter {number}"
        raise MetadataError(message)

    def short_type_name(self, token: int) -> str:
        """Return the name of a TypeDefOrRef coded index, no TypeSpec, without namespace and outer types: `List`1`."""
        table, rid = decode_coded("TypeDefOrRef", token)
        return self._string(self.tables.cell(table, rid, 1), _RESERVED)

    def _string(self, offset: int, marked: Mapping[int, str] | None = None) -> str:
        """Return the string at `offset` of the heap #Strings, with the characters in `marked` replaced, escaped."""
        self.tables.work.take()
        start, size = self._strings
        if offset >= size:
            message = f"the offset {offset:#x} is outside the metadata's strings"
            raise MetadataError(message)
        data = self._memory.read_available(start + offset, min(_MAX_NAME, size - offset))
        text, end, _ = data.partition(b"\0")
        if not end:
            message = f"the string at {start + offset:#x} is not readable, or too long"
            raise MetadataError(message)
        name = text.decode("utf-8", "replace")
        return escape(name.translate(marked) if marked else name, _MAX_NAME)

    def type_ref_name(self, rid: int) -> str:
        """Return namespace and name of the type of another module in row `rid` of TypeRef."""
        _, name, namespace = self.tables.row(Table.TYPE_REF, rid)
        return f"{self._string(namespace)}.{self._string(name)}"

    def blob(self, offset: int) -> bytes:
        """Return the bytes at `offset` of the heap #Blob, without their length."""
        start, size = self._blobs
        if offset >= size:
            message = f"the offset {offset:#x} is outside the metadata's blobs"
            raise MetadataError(message)
        head = self._memory.read_available(start + offset, min(4, size - offset))
        length, used = compressed(head, 0)
        begin = offset + used
        if length > _MAX_BLOB or begin + length > size:
            message = f"the blob at {start + offset:#x} claims {length:,} bytes"
            raise MetadataError(message)
        self.tables.work.take(1 + length // _BLOB_STEP)
        return self._read(start + begin, length, "a blob of the metadata")

    def _streams(self, root: int, size: int) -> dict[str, tuple[int, int]]:
        """Return address and size of each stream of the metadata at `root`, by name."""
        head = self._read(root, 16, "the metadata's root")
        version_size = struct.unpack_from("<I", head, 12)[0]
        if not head.startswith(_SIGNATURE) or version_size > _MAX_VERSION + 1:
            message = f"there are no metadata at {root:#x}"
            raise MetadataError(message)
        at = root + 16 + version_size
        count = struct.unpack("<2xH", self._read(at, 4, "the metadata's root"))[0]
        at += 4
        streams: dict[str, tuple[int, int]] = {}
        for _ in range(min(count, _MAX_STREAMS)):
            offset, length = struct.unpack("<II", self._read(at, 8, "the metadata's streams"))
            text, end, _ = self._memory.read_available(at + 8, _MAX_STREAM_NAME).partition(b"\0")
            if not end or offset + length > max(size, 0) or length > _MAX_STREAM:
                message = f"the metadata at {root:#x} have a damaged stream"
                raise MetadataError(message)
            streams.setdefault(text.decode("latin-1"), (root + offset, length))
            at += 8 + (len(text) + 4) // 4 * 4
        return streams

    def _read(self, address: int, size: int, what: str) -> bytes:
        try:
            return self._memory.read(address, size)
        except MemoryUnreadable as error:
            message = f"{what} at {address:#x} is not readable at {error.address:#x}"
            raise MetadataError(message) from error


class _NamesInMethod:
    """The names that the signature of a method needs (`TypeNames`), with those of its type's type parameters.

    Types may specify each other: forty TypeSpecs that each name all forty would be read without end. So each is read
    once, and only a certain number of them for one method.
    """

    __slots__ = ("_depth", "_metadata", "_method", "_specified", "_variables")

    def __init__(self, metadata: Metadata, method: int) -> None:
        self._metadata = metadata
        self._method = method
        self._depth = 0
        self._specified: dict[int, str] = {}
        self._variables: dict[tuple[int, int], str] = {}

    def short_type_name(self, token: int) -> str:
        table, rid = decode_coded("TypeDefOrRef", token)
        if table != Table.TYPE_SPEC:
            return self._metadata.short_type_name(token)
        if rid not in self._specified:
            self._specified[rid] = self._specified_type(rid)
        return self._specified[rid]

    def _specified_type(self, rid: int) -> str:
        if len(self._specified) >= _MAX_SPECIFIED:
            message = f"method {self._method} has more than {_MAX_SPECIFIED} types that are specified by types"
            raise MetadataError(message)
        self._depth += 1
        if self._depth > _MAX_SPECS:
            message = "a type is specified by types too deeply"
            raise MetadataError(message)
        blob = self._metadata.blob(self._metadata.tables.cell(Table.TYPE_SPEC, rid, 0))
        name = SignatureReader(blob, self).type()
        self._depth -= 1
        return name

    def type_variable(self, number: int) -> str:
        return self._variable(self._metadata.owner_of_method(self._method) << 1, number)

    def method_variable(self, number: int) -> str:
        return self._variable(self._method << 1 | 1, number)

    def _variable(self, owner: int, number: int) -> str:
        key = owner, number
        if key not in self._variables:
            self._variables[key] = self._metadata.generic_parameter(owner, number)
        return self._variables[key]
