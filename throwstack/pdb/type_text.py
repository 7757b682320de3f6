# SPDX-License-Identifier: Apache-2.0
"""Writes the types of a PDB as C++ does, in WinDbg's manner: `IErrorInfo *`, `char [16]`, `int (__cdecl *)(void *)`."""

from __future__ import annotations

from throwstack.core.registers import Arch
from throwstack.pdb.type_model import (
    Array,
    Basic,
    BitField,
    Enumeration,
    FunctionType,
    Modified,
    Pointer,
    PointerForm,
    Structure,
    UnknownType,
)
from throwstack.pdb.types import Types

_CONVENTIONS = {
    0: "__cdecl",
    1: "__cdecl",
    2: "__pascal",
    3: "__pascal",
    4: "__fastcall",
    5: "__fastcall",
    7: "__stdcall",
    8: "__stdcall",
    9: "__syscall",
    10: "__syscall",
    11: "__thiscall",
    22: "__clrcall",
    24: "__vectorcall",
}
"""`CV_call_e` of cvinfo.h."""
_OF_X64 = frozenset({22, 24})
_MAX_DEPTH = 12
_MAX_PARTS = 200
_CUT = "…"


def convention_text(convention: int, arch: Arch) -> str:
    """Return a calling convention as it is written, "" if there is nothing to say.

    x64 has one convention for almost all functions, and a PDB calls it cdecl. WinDbg does not show it, nor is it here.
    """
    if arch is Arch.X64 and convention not in _OF_X64:
        return ""
    return _CONVENTIONS.get(convention, "")


class TypeText:
    """Writes types of one PDB. What is nested too deep, or has too many parts, is cut with `…`."""

    def __init__(self, types: Types, arch: Arch) -> None:
        """`arch` is the architecture of the code that the PDB describes."""
        self._types = types
        self._arch = arch
        self._left = 0

    def of(self, index: int) -> str:
        """Return the type with the number `index`, as it is written."""
        self._left = _MAX_PARTS
        return self._written(index, "", 0)

    def parameters(self, function: FunctionType, names: tuple[str, ...] = ()) -> str:
        """Return the parameters of a function, separated by commas, with `names` where these are not ""."""
        self._left = _MAX_PARTS
        return self._parameters(function, names, 0)

    def _written(self, index: int, inner: str, depth: int) -> str:
        """Return the type `index` around `inner`; `inner` is `*`, for example, if a pointer points to the type."""
        self._left -= 1
        if depth > _MAX_DEPTH or self._left < 0:
            return _joined(_CUT, inner)
        found = self._types.type(index)
        if isinstance(found, Pointer):
            return self._pointer(found, inner, depth + 1)
        if isinstance(found, Array):
            return self._array(found, inner, depth + 1)
        if isinstance(found, FunctionType):
            head = _joined(convention_text(found.convention, self._arch), inner)
            parameters = f"({self._parameters(found, (), depth + 1)})"
            return self._written(found.returns, f"({head}){parameters}" if head else parameters, depth + 1)
        if isinstance(found, (Modified, BitField)):
            return self._derived(found, inner, depth + 1)
        return _joined(_name(found), inner)

    def _array(self, array: Array, inner: str, depth: int) -> str:
        """Return an array. An array of two arrays of three is `int [2][3]`, a pointer to one of them `int (*)[3]`."""
        size = self._types.size(array.element)
        count = f"[{array.size // size}]" if size else "[]"
        is_pointer = inner[:1] not in "([" and ("*" in inner or "&" in inner)
        return self._written(array.element, f"({inner}){count}" if is_pointer else inner + count, depth)

    def _pointer(self, pointer: Pointer, inner: str, depth: int) -> str:
        sign = pointer.form.value
        if pointer.is_to_member:
            sign = f"{self._written(pointer.owner, '', depth)}::*"
        if pointer.form is PointerForm.POINTER or pointer.is_to_member:
            sign += f"{' const' if pointer.is_const else ''}{' volatile' if pointer.is_volatile else ''}"
        is_qualified = sign[-1] not in "*&" or inner.startswith(("const", "volatile"))
        is_around_name = not is_qualified and isinstance(self._types.type(pointer.target), (Array, FunctionType))
        is_next = is_around_name or (inner[:1] in "*&[" and not is_qualified)
        return self._written(pointer.target, sign + inner if is_next else _joined(sign, inner), depth)

    def _derived(self, derived: Modified | BitField, inner: str, depth: int) -> str:
        if isinstance(derived, BitField):
            return f"{self._written(derived.target, inner, depth)} : {derived.length}"
        words = f"{'const ' if derived.is_const else ''}{'volatile ' if derived.is_volatile else ''}"
        if isinstance(self._types.type(derived.target), Pointer):  # `char * const`, the pointer is constant
            return self._written(derived.target, words + inner if inner else words.rstrip(), depth)
        return words + self._written(derived.target, inner, depth)

    def _parameters(self, function: FunctionType, names: tuple[str, ...], depth: int) -> str:
        if not function.parameters:
            return ""
        texts = []
        for position, index in enumerate(function.parameters):
            if self._left < 0:
                texts.append(_CUT)
                break
            name = names[position] if position < len(names) else ""
            texts.append(self._written(index, name, depth))
        return ", ".join(texts)


def _name(found: Basic | Enumeration | Structure | UnknownType) -> str:
    return "?" if isinstance(found, UnknownType) else found.name


def _joined(first: str, second: str) -> str:
    return f"{first} {second}" if first and second else first or second
