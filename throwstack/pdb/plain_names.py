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
_CLASS = re.compile(r"(?:[A-Za-z_]\w*::)+~?[A-Za-z_]\w*")


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
    return symbol.removeprefix("_")


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
    """Return how the decorated names of a C++ function `A::f` may begin; none if it is no plain qualified name."""
    if not _CLASS.fullmatch(name):
        return ()
    *scopes, own = name.split("::")
    outer = "@".join(reversed(scopes))
    itanium = "".join(f"{len(part)}{part}" for part in scopes)
    if own == scopes[-1]:
        return f"??0{outer}@@".encode(), f"_ZN{itanium}C".encode(), f"__ZN{itanium}C".encode()
    if own.startswith("~"):
        return f"??1{outer}@@".encode(), f"_ZN{itanium}D".encode(), f"__ZN{itanium}D".encode()
    ends = f"{itanium}{len(own)}{own}E"
    return f"?{own}@{outer}@@".encode(), f"_ZN{ends}".encode(), f"__ZN{ends}".encode()
