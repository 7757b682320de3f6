# SPDX-License-Identifier: Apache-2.0
r"""Turns decorated (mangled) names into readable ones: `?f@A@@QAEXH@Z` → `A::f`, `.?AVerror@@` → `error`.

LLVM's demangler (pydemumble) does the decoding, of Microsoft's names, of Itanium names (GCC, clang) and of Rust's. It
returns whole declarations, `public: void __thiscall A::f(int)`. A debugger shows the name alone, without return type,
access and parameters, and so do the functions of this module.

Three forms are brought into one that it knows. MinGW puts the size of the parameters after a name, `_ZN3Foo3barEi@8`,
as Microsoft does for stdcall functions in C. C++/CLI marks managed functions in the middle, `?f@@$$FYAXXZ`. Handlers
and filters that compilers have made functions of (funclets) are named after the function that they belong to, in the
form of a static variable of it: `?catch$0@?0??f@A@@QEAAXH@Z@4HA` is `A::f$catch$0` here, as the parts of C functions
are.

Names come from export tables and type descriptors, which may be hostile. A decorated name can refer back to its own
parts, so that a hundred characters stand for gigabytes, and it can nest so deeply that the decoder overflows its stack.
A name that might do either is returned as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache

from pydemumble import demangle as _demangle

_MAX_NAME = 1024
_MAX_EXPANSION = 1 << 22
_CONVENTION = re.compile(r"__(?:cdecl|stdcall|thiscall|fastcall|vectorcall|clrcall|pascal|regcall|eabi|swift\w+) ")
_TRAILER = re.compile(r"(?:\s*(?:const|volatile|__restrict|__unaligned|__ptr64|noexcept|&))*")
_DECORATED = re.compile(r"\?|__?Z|__?R[CMXYNIB]")
_RUST = re.compile(r"_?(_R[CMXYNIB])")
_RUST_REFERENCES = re.compile(r"B[0-9A-Za-z]*_")
_SIZED = re.compile(r"@?(__?Z.*)@\d+")
"""An Itanium name with the size of the parameters (stdcall, fastcall)."""
_MANAGED = re.compile(r"(\?.*?@@)\$\$[FHJ]\d?(.*)")
_FUNCLET = re.compile(r"\?((?:dtor|catch|filt|fin)\$\d+)@(?:\?0\?(?P<symbol>.+)@4HA|0@(?P<name>.+@@))")
"""A funclet: of the function with a whole symbol (Visual C++, clang), or with the name that begins one (clang)."""
_FASTCALL = re.compile(r"@(\w+)@\d+")
_INCREMENTAL = re.compile(r"@?(ILT\+\d+\(.*\))")
"""A thunk of incremental linking, `@ILT+5(_main)`. Its brackets belong to the name and are no parameter list."""
_KEYWORD = re.compile(r"\b(?:class|struct|union|enum) ")
_RTTI_SUFFIX = "`RTTI Type Descriptor Name'"
_REFERENCES = re.compile(r"(?<![a-z_0-9])[0-9]+")
_LISTS = re.compile(r"\?|(?<=[A-Z$])[68]")
_ITANIUM_REFERENCES = re.compile(r"S[0-9A-Z]*_|T[0-9]*_")
_ITANIUM_LISTS = re.compile(r"[FIJLNX]")
_OPEN, _CLOSE = "<([{`", ">)]}'"


@lru_cache(maxsize=65536)
def undecorate(name: str) -> str:
    """Return the qualified name in a C++ decorated name.

    A name that is not decorated, or is too complex, is returned unchanged.
    """
    if len(name) > _MAX_NAME:
        return name
    funclet = _FUNCLET.fullmatch(name)
    if funclet is not None:
        function = funclet["symbol"] or f"?{funclet['name']}YAXXZ"
        return f"{undecorate(function)}${funclet[1]}"
    text = declaration(name)
    if text is None:
        return name
    if _RUST.match(name):
        return text
    if name.startswith(("_", "@")):  # an Itanium name has no return type, unless it is a template's
        text = strip_parameters(text)
    return _tidy(_name_of_declaration(text)) or name


def declaration(name: str) -> str | None:
    """Return the whole declaration in a C++ decorated name; None if it cannot be decoded or is too complex."""
    if len(name) > _MAX_NAME:
        return None
    sized = _SIZED.fullmatch(name)
    name = sized[1] if sized is not None else name
    managed = _MANAGED.fullmatch(name)
    if managed is None:
        return _decoded(name)
    # Types of C++/CLI (`String ^`) cannot be decoded. The name can, with the type of another function.
    return _decoded(managed[1] + managed[2]) or _decoded(managed[1] + "YAXXZ")


def _decoded(name: str) -> str | None:
    if _RUST.match(name):
        name = name[name.index("_R") :]
    elif not name.startswith(("?", "_Z", "__Z")):
        return None
    return _demangle(name) or None if _is_bounded(name) else None


def type_name(descriptor: str) -> str:
    """Return the type that an RTTI type descriptor of Visual C++ names: `.?AVbad_alloc@std@@` → `std::bad_alloc`.

    A name that cannot be decoded, or is too complex, is unchanged.
    """
    if not descriptor.startswith(".") or not _is_bounded(descriptor):
        return descriptor
    text = _demangle(descriptor)
    if not text.endswith(_RTTI_SUFFIX):
        return descriptor
    return _tidy(text[: -len(_RTTI_SUFFIX)].strip())


def itanium_type_name(name: str) -> str:
    """Return the type for which the name in a GCC `type_info` stands: `St13runtime_error` → `std::runtime_error`.

    The result is "" if `name` is no such name.
    """
    decorated = f"_ZTS{name}"
    text = _demangle(decorated) if _is_bounded(decorated) else None
    prefix = "typeinfo name for "
    return text[len(prefix) :] if text and text.startswith(prefix) else ""


def strip_parameters(signature: str) -> str:
    """Return a function's name without its parameter list: `A::f(int) const` → `A::f`.

    `A::operator()(int)` becomes `A::operator()`. Parameters may themselves be functions, as in `f(int (*)(char))`. What
    follows `A::operator int (__cdecl*)(char)` without parameters belongs to the type that the object is converted to.
    """
    last = signature.rfind(")")
    if last < 0 or not _TRAILER.fullmatch(signature, last + 1):
        return signature
    first = signature.rfind("(", 0, last)
    depth = signature.count(")", first, last)  # greater than 0 if parameters are functions
    while depth and first >= 0:
        depth -= 1
        outer = signature.rfind("(", 0, first)
        depth += signature.count(")", outer, first)
        first = outer
    head = signature[: max(first, 0)].rstrip()
    is_type = head.endswith("*)") and "operator" in head
    return signature if not head or is_type or head.endswith("operator") else head


def display_name(symbol: str) -> str:
    """Return the name that a debugger shows for a symbol of a PDB, undecorated and without parameters."""
    if is_decorated(symbol):
        return undecorate(symbol)
    thunk = _INCREMENTAL.fullmatch(symbol)
    if thunk:
        return thunk[1]
    name = strip_parameters(symbol)
    fastcall = _FASTCALL.fullmatch(name)
    return fastcall[1] if fastcall else name


def is_decorated(symbol: str) -> bool:
    """Say whether a symbol of a PDB is a decorated name of C++ or Rust, or looks like one.

    If it is not, the symbol is a readable name, with or without parameters.
    """
    return _DECORATED.match(symbol) is not None or _SIZED.fullmatch(symbol[:_MAX_NAME]) is not None


def _is_bounded(name: str) -> bool:
    """Say whether the decoded form of `name` has a limited length, which also limits the time that decoding takes.

    In a Microsoft name, a digit in place of a name or type repeats one of the ten before it in the same list (of
    parameters or template arguments). A list with n references is thus at most 1 + n times as long as what it spells
    out. Lists nest, so the factors multiply; for R references in L lists the product is largest when they are spread
    evenly, (1 + R/L) ** L. Every digit counts as a reference, but for digits after a small letter or an underscore:
    those are in an identifier, which a reference never is. References of Itanium names (`S0_`, `T_`) work alike. A
    reference of Rust (`B3_`) can at most double what is before it.
    """
    if len(name) > _MAX_NAME or not name.isprintable():
        return False
    if _RUST.match(name):
        return len(name) * 2.0 ** len(_RUST_REFERENCES.findall(name)) <= _MAX_EXPANSION
    if name.startswith("_"):
        references, lists = len(_ITANIUM_REFERENCES.findall(name)), 1 + len(_ITANIUM_LISTS.findall(name))
    else:
        references, lists = sum(len(run) for run in _REFERENCES.findall(name)), 1 + len(_LISTS.findall(name))
    if references > 64:
        return False
    growth = (1 + references / lists) ** lists if lists < references else 2.0**references
    return len(name) * growth <= _MAX_EXPANSION


def _name_of_declaration(text: str) -> str:
    depth = 0
    last_space = -1
    for index, char in enumerate(text):
        if char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth -= 1
        elif depth < 2 and char == "_":
            convention = _CONVENTION.match(text, index)
            if convention is not None and not depth:
                return strip_parameters(text[convention.end() :])
            if convention is not None and not text.startswith("*", convention.end()):
                return _first_group(text[convention.end() :])  # `int (__cdecl * __cdecl f(void))(int)`
        elif depth == 0 and char == " ":
            last_space = index
    if depth or text.startswith('"') or text.endswith(")"):
        return text  # a string's contents; a pointer to a function
    return text[last_space + 1 :].lstrip("*&")


def _first_group(text: str) -> str:
    """Return the function's name in `text`, which is the rest of a declaration, such as `f(void))(int)`.

    The name ends, with its parameters, before the first unmatched `)`.
    """
    depth = 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth < 0:
            return strip_parameters(text[:index])
    return text


def _tidy(name: str) -> str:
    """Spell `name` as Microsoft's tools do where LLVM does otherwise: `A<B,C<int> >`, no `class` before a type."""
    name = _KEYWORD.sub("", name).replace(" deleting dtor'", " deleting destructor'")
    if "<" in name and "operator" not in name:
        name = name.replace(", ", ",")
        while ">>" in name:
            name = name.replace(">>", "> >")
    return name
