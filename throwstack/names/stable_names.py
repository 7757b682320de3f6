# SPDX-License-Identifier: Apache-2.0
"""Names of functions that stay the same from build to build, for signatures of crashes.

Symbol tables give one function many names: with stdcall decoration (`_UnhandledExceptionFilter@4`), mangled, with its
parameters, with template arguments, with the numbers that compilers give to lambdas and clones. All of these differ
between two builds of the same source, or between a PDB and the exports. So a stable name has none of these parts.
"""

from __future__ import annotations

import re
from functools import lru_cache

from throwstack.names.demangle import is_decorated, undecorate

_LONGEST = 160
_READ = 1024

_STDCALL = re.compile(r"[_@]?(\w+)@\d+")
_ANONYMOUS = re.compile(r"\(anonymous namespace\)|`anonymous namespace'|\?A0x[0-9a-f]+|\{anonymous\}")
_LAMBDA = re.compile(r"<lambda_[0-9a-f]+>|\{lambda\([^()]{0,200}\)#\d+\}")
_OPERATOR = re.compile(r"\boperator\s*(?:\(\)|<=>|<<=?|>>=?|->\*?|<=?|>=?)")
_CLONE = re.compile(r"(?:\.(?:part|constprop|isra|cold|llvm|lto_priv)(?:\.\d+)?)+$")
_PART = re.compile(r"(?:\$(?:cold|filt|fin|catch|dtor)(?:\$\d+)?)+$")
"""Parts of a function that Visual C++ places apart from it: exception filters, handlers, code that seldom runs."""
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")


@lru_cache(maxsize=4096)
def plain_name(symbol: str) -> str:
    """Return the stable name of the function `symbol`, at most 160 characters.

    `_Foo@8` is `Foo`; `void __cdecl a::f<int>(int)` and `?f@...` are `a::f<T>`; `g::<lambda_1f0c>::operator()` is
    `g::lambda::operator()`; `h.part.0` and `h$catch$0` are `h`.
    """
    symbol = symbol[:_READ]
    decorated = _STDCALL.fullmatch(symbol)
    if decorated and not is_decorated(symbol):
        return decorated[1][:_LONGEST]
    symbol = _PART.sub("", _CLONE.sub("", symbol))
    readable = _LAMBDA.sub("lambda", _ANONYMOUS.sub("anonymous", _PART.sub("", undecorate(symbol))))
    return _RUST_HASH.sub("", _last_word(_without_groups(readable)))[:_LONGEST]


def _without_groups(name: str) -> str:
    """Return `name` without parameters and template arguments: `a<b>::c(d) const` becomes `a<T>::c`."""
    kept: list[str] = []
    depth = 0
    position = 0
    while position < len(name):
        operator = None if depth else _OPERATOR.match(name, position)
        if operator:
            kept.append(operator[0])
            position = operator.end()
            continue
        character = name[position]
        if character == "(" and not depth and kept:
            break
        if character == "<" and (depth or (position and name[position - 1] not in ":` ")):
            if not depth:
                kept.append("<T>")
            depth += 1
        elif character == ">" and depth:
            depth -= 1
        elif not depth:
            kept.append(character)
        position += 1
    return "".join(kept).strip()


def _last_word(name: str) -> str:
    """Return the name in a declaration, without the type before it.

    A name with `operator` in it is returned with all that follows, so that `operator new` stays whole. Spaces between
    quotation marks belong to the name: "`dynamic initializer for 'x''".
    """
    operator = re.search(r"\S*\boperator\b.*", name)
    if operator:
        return operator[0]
    depth, start = 0, 0
    for index, character in enumerate(name):
        depth += (character == "`") - (character == "'" and depth > 0)
        if character == " " and not depth:
            start = index + 1
    return name[start:]
