# SPDX-License-Identifier: Apache-2.0
"""Names of public symbols as a debugger shows them, and the decorated names that a readable name may have.

The decoration of C functions says how they take their parameters, and only 32-bit x86 has it: `_f` is cdecl, `_f@8`
stdcall with 8 bytes of parameters, `@f@8` fastcall. On x64 and ARM64 an underscore belongs to the name, as in
`_invoke_watson`. `f@@16`, vectorcall, is on both. Names of C++, of Rust and of GCC's C++ have decorations of their own
on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from throwstack.names.demangle import display_name
from throwstack.pdb.dbi import X86

_STDCALL = re.compile(r"_(.+)@\d+")
_FASTCALL = re.compile(r"@(.+?)@\d+")
_VECTORCALL = re.compile(r"([^?@].*)@@\d+")
_MAX_PARAMETERS, _MAX_OF_FASTCALL = 20, 10
"""How many words of parameters a stdcall and a fastcall function are looked for with."""
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


def plain_name(symbol: str, machine: int) -> str:
    """Return the name that a debugger shows for a public symbol of an image for `machine`."""
    if symbol.startswith("?"):
        return display_name(symbol)
    vectorcall = _VECTORCALL.fullmatch(symbol)
    if vectorcall is not None:
        return vectorcall[1]
    return display_name(_without_decoration(symbol) if machine == X86 else symbol)


def _without_decoration(symbol: str) -> str:
    match = _STDCALL.fullmatch(symbol) or _FASTCALL.fullmatch(symbol)
    if match is not None and not symbol.startswith("@ILT+"):
        return match[1]
    return symbol.removeprefix("_") or symbol


def decorated_names(name: str, machine: int) -> Iterator[str]:
    """Yield the names that a C function `name` may have among the public symbols."""
    yield name
    if machine == X86:
        yield f"_{name}"
        for size in range(0, 4 * _MAX_PARAMETERS + 1, 4):
            yield f"_{name}@{size}"
            if size <= 4 * _MAX_OF_FASTCALL:
                yield f"@{name}@{size}"


def decorated_beginnings(name: str) -> tuple[bytes, ...]:
    """Return how the decorated names of a C++ function `A::f` may begin; none if it is no name of C++.

    Names of templates, operators and what a compiler makes (`` A::`scalar deleting destructor' ``) begin in a way that
    others have too.
    """
    if "operator" in name or "`" in name:
        return (b"??",)
    *scopes, own = _without_arguments(name).split("::")
    if not all(map(_IDENTIFIER.fullmatch, [*scopes, own.removeprefix("~")])):
        return ()
    if "<" in name:
        if scopes and own.removeprefix("~") == scopes[-1]:
            return (b"??1" if own.startswith("~") else b"??0",)
        return (f"?{own}@".encode(), f"??${own}@".encode())
    return _beginnings(scopes, own) if scopes else ()


def _beginnings(scopes: list[str], own: str) -> tuple[bytes, ...]:
    """Return how Microsoft's and Itanium names begin of the function `own` in `scopes`, which are no templates."""
    outer = "@".join(reversed(scopes))
    itanium = "".join(f"{len(part)}{part}" for part in scopes)
    microsoft, end = f"?{own}@{outer}@@", f"{len(own)}{own}E"
    if own == scopes[-1]:
        microsoft, end = f"??0{outer}@@", "C"
    elif own.startswith("~"):
        microsoft, end = f"??1{outer}@@", "D"
    return microsoft.encode(), f"_ZN{itanium}{end}".encode(), f"__ZN{itanium}{end}".encode()


def _without_arguments(name: str) -> str:
    """Return a name without the arguments of its templates."""
    kept, depth = [], 0
    for char in name:
        depth += char == "<"
        if not depth:
            kept.append(char)
        depth -= char == ">"
    return "".join(kept)
