# SPDX-License-Identifier: Apache-2.0
"""Finds the JIT-compiled method at an address of x86 code, by the header right before the method's code.

    code - 10h   debug info   EH info   GC info   MethodDesc      (CodeHeader in dotnet/coreclr, src/vm/codeman.h)

The words before an address are looked at, back to the begin of its region, as on x64 (`throwstack.managed.jit_code`).
Four words are a header if the GC info covers the address and agrees with the code: a method whose ebp is a frame
pointer begins with `push ebp; mov ebp,esp`, any other with the pushes of the registers that the GC info says it saves.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from throwstack.core.memory import Memory, MemoryUnreadable
from throwstack.core.regions import Regions
from throwstack.managed.gc_info_x86 import GcHeader, decode_gc_header, frame_of
from throwstack.managed.jit_code import SOURCE, JitCodeOfProcess, JitMethod, MethodLookup
from throwstack.unwind.code_outside import OutsideFunction

_WORD = struct.Struct("<I")
_HEADER = struct.Struct("<IIII")
_LOWEST = 0x10000
_MAX_KEPT = 1 << 12
_FRAME_POINTER = b"\x55\x8b\xec"
_PUSH = {"edi": 0x57, "esi": 0x56, "ebx": 0x53, "ebp": 0x55}


@dataclass(frozen=True, slots=True)
class _Described:
    """A method's GC header, and what it is for unwinders outside of its body (in prologue and epilogues) and in it."""

    header: GcHeader | None
    outside_body: OutsideFunction
    in_body: OutsideFunction


class JitCodeX86(JitCodeOfProcess):
    """The JIT-compiled code of one x86 process, a `FunctionSource`. Nothing is read before the first look-up."""

    __slots__ = ("_described",)

    def __init__(self, memory: Memory, methods: MethodLookup | None = None, regions: Regions | None = None) -> None:
        """All three are as for `JitCodeOfProcess`."""
        super().__init__(memory, methods, regions)
        self._described: dict[int, _Described] = {}

    def function_at(self, address: int) -> OutsideFunction | None:
        """Return the method at `address`, and whether its ebp is a frame pointer; None if no method is there."""
        method = self.method_at(address)
        if method is None:
            return None
        known = self._described.get(method.start)
        if known is None:
            if len(self._described) >= _MAX_KEPT:
                self._described.clear()
            known = self._described[method.start] = self._describe(method)
        is_in_body = known.header is not None and known.header.is_in_body(address - method.start)
        return known.in_body if is_in_body else known.outside_body

    def _describe(self, method: JitMethod) -> _Described:
        """Return what is known of a method. A stack that overflowed asks for it a hundred thousand times."""
        header = self.header_of(method)
        plain = OutsideFunction(SOURCE, self._name(method), start=method.start)
        if header is None:
            return _Described(None, plain, plain)
        has_frame_pointer = header.has_frame_pointer or header.is_aligned
        return _Described(header, plain, replace(plain, has_frame_pointer=has_frame_pointer, frame=frame_of(header)))

    def header_of(self, method: JitMethod) -> GcHeader | None:
        """Return the header of a method's GC info, which describes its frame; None if it cannot be read."""
        return decode_gc_header(self._memory, method.gc_info)

    def method_at(self, address: int) -> JitMethod | None:
        """Return the JIT-compiled method whose code is at `address`, None if none is found."""
        known = self._search.known(address)
        if known is not None or not self._search.may_search(address):
            return known
        found = None
        for at, method_desc in self._search.back(address, _WORD):
            if method_desc & 3 or method_desc < _LOWEST:
                continue
            if not self._search.may_follow():
                break
            found = self._method(at + 4, address)
            if found is not None:
                break
        return self._search.keep(address, found)

    def _method(self, start: int, address: int) -> JitMethod | None:
        """Return the method whose code begins at `start`, None if no such method has code at `address`."""
        try:
            _, _, gc_info, method_desc = _HEADER.unpack(self._memory.read(start - _HEADER.size, _HEADER.size))
            if gc_info < _LOWEST or not self._memory.is_readable(method_desc):
                self._search.note_unread(address, method_desc)
                return None
            header = decode_gc_header(self._memory, gc_info)
            if header is None or address >= start + header.method_size:
                return None
            expected = _FRAME_POINTER if header.has_frame_pointer or header.is_aligned else _pushes(header)
            if self._memory.read(start, len(expected)) != expected:
                return None
        except MemoryUnreadable as error:
            self._search.note_unread(address, error.address)
            return None
        # Without a push to compare, only a MethodDesc that is genuine tells a header from any four words.
        if not expected and (self._methods is None or self._methods.at(method_desc) is None):
            return None
        return JitMethod(start, start + header.method_size, method_desc, gc_info)


def _pushes(header: GcHeader) -> bytes:
    """Return the pushes with which a method without frame pointer begins: the reverse of the slots' order."""
    return bytes(_PUSH[name] for name in reversed(header.saved))
