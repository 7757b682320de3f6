# SPDX-License-Identifier: Apache-2.0
"""From a function of a ReadyToRun image (precompiled code) to its method's token.

Follows dotnet/runtime, docs/design/coreclr/botr/readytorun-format.md. The image's RUNTIME_FUNCTIONs are in section 102.
Section 103 gives, for each row of MethodDef, the number of its first RUNTIME_FUNCTION; funclets follow it. Section 109
does so for instances of generic methods, each with a signature. Section 120 pairs the cold parts of methods, which are
at the end, with the methods. All of it is inverted at the first look-up: from number to row.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.managed.cli_header import CliHeader
from throwstack.managed.metadata_error import MetadataError
from throwstack.managed.method_indexes import MethodIndexes, Methods
from throwstack.managed.native_format import NativeSection
from throwstack.managed.precompiled_functions import PrecompiledFunctions, PrecompiledMethod
from throwstack.managed.signature_types import compressed
from throwstack.managed.work import Work, WorkSpent, precompiled_work

_SIGNATURE = b"RTR\0"
_HEAD = struct.Struct("<4sHHII")
_SECTION = struct.Struct("<III")
_MAX_SECTIONS = 64
_FUNCTIONS, _METHODS, _INSTANCES, _COLD_PARTS = 102, 103, 109, 120
_COMPONENT = 0x20
_MAX_DEPTH = 32
_INSTANTIATION, _SLOT, _MEMBER_REF, _CONSTRAINED, _OWNER_TYPE, _UPDATE_CONTEXT = 0x04, 0x08, 0x10, 0x20, 0x40, 0x80
"""Flags of a method's signature."""
_PRIMITIVES = frozenset({*range(0x01, 0x0F), 0x16, 0x18, 0x19, 0x1C, 0x3E})
_NUMBERED = (0x11, 0x12, 0x13, 0x1E, 0x3B)
_WRAPPING = (0x0F, 0x10, 0x1D, 0x3A, 0x3D, 0x45)
_NUMBERED_WRAPPING = (0x1F, 0x20, 0x3F)
_ARRAY, _GENERIC_INSTANCE = 0x14, 0x15
"""Types by their first byte: with nothing after it, with a number, with a type, with a number and a type."""


class ReadyToRun:
    """The precompiled methods of one ReadyToRun image. Nothing is inverted before the first look-up."""

    __slots__ = (
        *("_cold", "_first", "_functions", "_header", "_indexes", "_memory", "_methods", "_sections"),
        *("_why_none", "_work", "is_whole", "version"),
    )

    def __init__(
        self, memory: Memory, header: CliHeader, indexes: MethodIndexes | None = None, work: Work | None = None
    ) -> None:
        """`header` is that of an image that is laid out in `memory`. Inverted sections are taken from `indexes`.

        `work` counts the steps in the tables of all images of a process.

        Raises:
            MetadataError: the image has no ReadyToRun code of its own, or its header is absent or damaged.
        """
        self._memory = memory
        self._header = header
        self._indexes = MethodIndexes() if indexes is None else indexes
        self._work = precompiled_work() if work is None else work
        self._methods: Methods | None = None
        self._why_none = ""
        self._first: list[int] = []
        self._cold: list[tuple[int, int]] = []
        self.is_whole = True
        """False if the look-up has met parts that could not be read, so that some methods may be missing."""
        try:
            self.version, self._sections = self._open()
        except MemoryUnreadable as error:
            message = f"the ReadyToRun header of the image at {header.base:#x} is not readable at {error.address:#x}"
            raise MetadataError(message) from error
        rva, size = self._sections[_FUNCTIONS]
        is_x86 = header.is_pe32
        self._functions = PrecompiledFunctions(
            memory, header.address(rva), size // (8 if is_x86 else 12), is_x86=is_x86
        )

    def _open(self) -> tuple[tuple[int, int], dict[int, tuple[int, int]]]:
        """Return the format's version, and RVA and size of each section by its type."""
        rva, size = self._header.precompiled
        head = self._memory.read(self._header.address(rva), _HEAD.size) if size >= _HEAD.size else bytes(_HEAD.size)
        signature, major, minor, flags, count = _HEAD.unpack(head)
        data = self._memory.read(self._header.address(rva) + _HEAD.size, min(count, _MAX_SECTIONS) * _SECTION.size)
        sections = {kind: (at, length) for kind, at, length in _SECTION.iter_unpack(data)}
        if signature != _SIGNATURE or flags & _COMPONENT or _FUNCTIONS not in sections:
            message = f"the image at {self._header.base:#x} has no ReadyToRun code of its own"
            raise MetadataError(message)
        return (major, minor), sections

    def method_at(self, rva: int) -> PrecompiledMethod | None:
        """Return the method whose code is at `rva`; None if no precompiled code is there, or its method is not known.

        Raises:
            MetadataError: a part of the image that is needed is absent or damaged.
        """
        number = self._functions.find(rva)
        if number is None:
            return None
        methods = self._inverted()
        at = bisect_right(self._first, self._hot(number)) - 1
        if at < 0:
            return None
        first = self._first[at]
        rid, is_instance = methods[first]
        start = self._functions.begin(first)
        return PrecompiledMethod(rid, start, is_instance=is_instance, is_body=number == first)

    def _inverted(self) -> Methods:
        """Return the methods by the number of their first function. What cannot be inverted is not tried again."""
        if self._why_none:
            raise MetadataError(self._why_none)
        if self._methods is None:
            try:
                methods, self._cold = self._invert(), self._cold_parts()
            except MetadataError as error:
                self._why_none = str(error)
                raise
            self._methods, self._first = methods, sorted(methods)
        return self._methods

    def gc_info(self, rva: int) -> tuple[int, int] | None:
        """Return where the GC info of the x86 method at `rva` is, and how far `rva` is from the method's start.

        None if there is none. Raises MetadataError.
        """
        number = self._functions.find(rva) if self._header.is_pe32 else None
        return None if number is None else (self._functions.unwind(number), rva - self._functions.begin(number))

    def _hot(self, number: int) -> int:
        """Return the number of the method's first function, if function `number` is in a cold part."""
        at = bisect_right(self._cold, (number, 1 << 32)) - 1
        return number if at < 0 else self._cold[at][1]

    def _cold_parts(self) -> list[tuple[int, int]]:
        """Return the pairs of section 120: the first function of a cold part, that of its method."""
        section = self._section(_COLD_PARTS)
        if section is None:
            return []
        self._work.take(len(section.data) // 8)
        pairs = [(section.fixed(at, 4), section.fixed(at + 4, 4)) for at in range(0, len(section.data) - 7, 8)]
        return sorted(pairs)

    def _section(self, kind: int) -> NativeSection | None:
        if kind not in self._sections:
            return None
        rva, size = self._sections[kind]
        self._header.address(rva + max(size, 1) - 1)
        section = NativeSection(self._memory, self._header.address(rva), size, self._work)
        self.is_whole = self.is_whole and section.is_whole
        return section

    def _invert(self) -> Methods:
        """Return each method by the number of its first function."""
        methods, instances = self._section(_METHODS), self._section(_INSTANCES)
        return self._indexes.get(methods, instances, lambda: dict(inverted_sections(methods, instances)))


def inverted_sections(
    methods: NativeSection | None, instances: NativeSection | None
) -> Iterator[tuple[int, tuple[int, bool]]]:
    """Yield the methods of sections 103 and 109, instances last. What cannot be read is left out. Raises WorkSpent."""
    if methods is not None:
        for number, offset in methods.array():
            with suppress(MetadataError):
                yield _entry_point(methods, offset), (number + 1, False)
    if instances is not None:
        for offset in instances.hash_table():
            try:
                rid, after = _Signature(instances, offset).method()
                yield _entry_point(instances, after), (rid, True)
            except WorkSpent:
                raise
            except MetadataError:
                continue


def _entry_point(section: NativeSection, offset: int) -> int:
    """Return the number of the first function of a method: bit 0 says that two bits come before it, else one."""
    value, _ = section.unsigned(offset)
    return value >> 2 if value & 1 else value >> 1


class _Signature:
    """Reads the signature of an instance of a method, which says what method it is, up to its end."""

    __slots__ = ("_at", "_section")

    def __init__(self, section: NativeSection, offset: int) -> None:
        self._section = section
        self._at = offset

    def method(self) -> tuple[int, int]:
        """Return the row in MethodDef, 0 for a method of another module; and the offset after the signature."""
        start, flags = self._at, self._number()
        is_foreign = bool(flags & _UPDATE_CONTEXT) and self._number() != 0
        if flags & _OWNER_TYPE:
            self._type()
        rid = self._number()
        if flags & _INSTANTIATION:
            self._types()
        if flags & _CONSTRAINED:
            self._type()
        self._section.check(start, self._at - start)
        return (0 if is_foreign or flags & (_SLOT | _MEMBER_REF) else rid), self._at

    def _number(self) -> int:
        self._section.work.take()
        data, at = self._section.data, self._at
        if 0 <= at < len(data) and data[at] < 0x80:  # most have one byte
            self._at = at + 1
            return data[at]
        number, self._at = compressed(data, at)
        return number

    def _types(self) -> None:
        for _ in range(self._number()):
            self._type()

    def _type(self, depth: int = 0) -> None:
        """Pass over a type: one of ECMA-335, or one of the types of precompiled images alone (from 3Bh on)."""
        element = self._number()
        if depth > _MAX_DEPTH:
            message = "a type of a precompiled method is nested too deeply"
            raise MetadataError(message)
        if element in (_ARRAY, _GENERIC_INSTANCE):
            self._type(depth + 1)
            for _ in range(self._number() if element == _GENERIC_INSTANCE else 0):
                self._type(depth + 1)
            if element == _ARRAY:
                self._dimensions()
        elif element in _NUMBERED or element in _NUMBERED_WRAPPING:
            self._number()
        elif element not in _WRAPPING and element not in _PRIMITIVES:
            message = f"{element:#x} is no type of a precompiled method"
            raise MetadataError(message)
        if element in _WRAPPING or element in _NUMBERED_WRAPPING:
            self._type(depth + 1)

    def _dimensions(self) -> None:
        """Pass over the rank of an array, its sizes and its lower bounds."""
        self._number()
        for _ in range(2):
            for _ in range(self._number()):
                self._number()
