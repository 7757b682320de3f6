# SPDX-License-Identifier: Apache-2.0
"""The basic types of a PDB, and pointers to them: the type numbers below 0x1000.

The low byte says which type it is, and the four bits above say whether it is a pointer to that type (`TYPE_ENUM_e` of
`cvinfo.h`). A typedef leaves no trace in the type of a variable: a DWORD is an `unsigned long`. An HRESULT is a type of
its own, because Microsoft's compiler knows it.
"""

from __future__ import annotations

from throwstack.pdb.type_model import Basic, BasicKind, Pointer, Type, UnknownType

_NOTHING, _SIGNED, _UNSIGNED = BasicKind.NOTHING, BasicKind.SIGNED, BasicKind.UNSIGNED
_CHARACTER, _BOOLEAN, _FLOATING = BasicKind.CHARACTER, BasicKind.BOOLEAN, BasicKind.FLOATING
_BASIC = {
    0x00: Basic("...", _NOTHING, 0),
    0x03: Basic("void", _NOTHING, 0),
    0x08: Basic("HRESULT", BasicKind.HRESULT, 4),
    0x10: Basic("signed char", _SIGNED, 1),
    0x11: Basic("short", _SIGNED, 2),
    0x12: Basic("long", _SIGNED, 4),
    0x13: Basic("__int64", _SIGNED, 8),
    0x14: Basic("__int128", _SIGNED, 16),
    0x20: Basic("unsigned char", _UNSIGNED, 1),
    0x21: Basic("unsigned short", _UNSIGNED, 2),
    0x22: Basic("unsigned long", _UNSIGNED, 4),
    0x23: Basic("unsigned __int64", _UNSIGNED, 8),
    0x24: Basic("unsigned __int128", _UNSIGNED, 16),
    0x30: Basic("bool", _BOOLEAN, 1),
    0x31: Basic("bool16", _BOOLEAN, 2),
    0x32: Basic("bool32", _BOOLEAN, 4),
    0x33: Basic("bool64", _BOOLEAN, 8),
    0x34: Basic("bool128", _BOOLEAN, 16),
    0x40: Basic("float", _FLOATING, 4),
    0x41: Basic("double", _FLOATING, 8),
    0x42: Basic("long double", _FLOATING, 10),
    0x43: Basic("__float128", _FLOATING, 16),
    0x46: Basic("_Float16", _FLOATING, 2),
    0x50: Basic("_Complex float", BasicKind.OTHER, 8),
    0x51: Basic("_Complex double", BasicKind.OTHER, 16),
    0x52: Basic("_Complex long double", BasicKind.OTHER, 20),
    0x53: Basic("_Complex __float128", BasicKind.OTHER, 32),
    0x56: Basic("_Complex _Float16", BasicKind.OTHER, 4),
    0x68: Basic("signed char", _SIGNED, 1),
    0x69: Basic("unsigned char", _UNSIGNED, 1),
    0x70: Basic("char", _CHARACTER, 1),
    0x71: Basic("wchar_t", _CHARACTER, 2),
    0x72: Basic("short", _SIGNED, 2),
    0x73: Basic("unsigned short", _UNSIGNED, 2),
    0x74: Basic("int", _SIGNED, 4),
    0x75: Basic("unsigned int", _UNSIGNED, 4),
    0x76: Basic("__int64", _SIGNED, 8),
    0x77: Basic("unsigned __int64", _UNSIGNED, 8),
    0x78: Basic("__int128", _SIGNED, 16),
    0x79: Basic("unsigned __int128", _UNSIGNED, 16),
    0x7A: Basic("char16_t", _CHARACTER, 2),
    0x7B: Basic("char32_t", _CHARACTER, 4),
    0x7C: Basic("char8_t", _CHARACTER, 1),
}
_POINTER_SIZES = {4: 4, 5: 4, 6: 8}
_NULLPTR = 0x103
NULLPTR = Basic("std::nullptr_t", BasicKind.OTHER, 0)
"""The type of `nullptr`. Its size is that of a pointer, and it has no value but one."""


def basic_type(number: int) -> Type:
    """Return the type of a number below 0x1000."""
    if number == _NULLPTR:
        return NULLPTR
    target, mode = number & 0xFF, number >> 8 & 0xF
    if not mode:
        return _BASIC.get(target, UnknownType(number))
    size = _POINTER_SIZES.get(mode)
    return UnknownType(number) if size is None else Pointer(target, size)
